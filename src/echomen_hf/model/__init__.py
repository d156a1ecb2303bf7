"""What travels with a checkpoint: configuration, model, video processor, pipeline, and the reading of files."""
