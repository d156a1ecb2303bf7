"""The outline of the left ventricle in every frame of a video."""
