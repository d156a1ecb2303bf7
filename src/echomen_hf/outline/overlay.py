"""Pictures of an outline: the border drawn into the video, and the volume curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from ..model.sector_echomen import Sector, common_pixels, is_data_set_clip
from .browser_video import display_size, resize_image, write_browser_video


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .beats import Beat
    from .video_outline import VideoOutline

__all__ = ["draw_outlines", "draw_volumes", "marked_frames", "write_overlay"]

# Of Okabe and Ito, as in all figures: end diastole, end systole, any other time.
_COLOURS = {"ED": (0, 158, 115), "ES": (230, 159, 0), "": (86, 180, 233)}
_MARKED_SECONDS = 0.06  # before and after a moment that is marked
_GIF_FPS = 25.0


def marked_frames(beats: Iterable[Beat], fps: float) -> dict[int, str]:
    """Name the frames around end diastole and end systole, "ED" and "ES", long enough to be seen."""
    around = range(-round(_MARKED_SECONDS * fps), round(_MARKED_SECONDS * fps) + 1)
    moments = [moment for beat in beats for moment in ((beat.ed_frame, "ED"), (beat.es_frame, "ES"))]
    return {frame + step: name for frame, name in moments for step in around}


def draw_outlines(
    frames: Iterable[NDArray[np.uint8]], masks: Iterable[NDArray[np.bool_]], marks: Mapping[int, str]
) -> Iterator[NDArray[np.uint8]]:
    """Draw the border of masks (H, W) into gray frames (H, W) enlarged for display, and name marked frames."""
    for number, (frame, mask) in enumerate(zip(frames, masks)):
        size = display_size(*frame.shape)
        picture = np.repeat(resize_image(frame, size)[..., None], 3, axis=2)
        mark = marks.get(number, "")
        if mask.any():
            # Without the steps of the pixels of a small picture.
            smooth = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)
            inside = resize_image(smooth, size) > 0.5
            border = inside ^ ndimage.binary_erosion(inside, iterations=max(1, round(min(size) / 200)))
            picture[border] = _COLOURS[mark]
        if mark:
            image = Image.fromarray(picture)
            font, margin = ImageFont.load_default(min(size) / 14), min(size) / 40
            # Below, since players write the title of a video above.
            ImageDraw.Draw(image).text((margin, size[0] - margin), mark, _COLOURS[mark], font, anchor="ls")
            picture = np.asarray(image)
        yield picture


def write_overlay(outline: VideoOutline, path: str | Path, form: Literal["mp4", "gif"] | None = None) -> None:
    """Write a video with the border of the left ventricle, in another colour at end diastole and end systole.

    It shows the ultrasound fan alone: what else is on a screen, such as a patient's name, is not copied. Where no fan
    was found in a picture that is larger than a clip of a data set, the border is drawn on black.

    Args:
        outline: Outline of a video.
        path: File to write.
        form: `"mp4"` (H.264), or `"gif"` of at most 25 frames a second. Defaults to the ending of the file.

    Raises:
        ValueError: If the file ends otherwise and no form is given.
    """
    form = form or Path(path).suffix.lower().removeprefix(".")  # type: ignore[assignment]
    if form not in ("mp4", "gif"):
        raise ValueError(f"{Path(path).name} must end in .mp4 or .gif.")
    frames = _fan_alone(outline.sector, outline.video.frames)
    masks = outline.sector.crop(outline.masks.view(np.uint8)).view(bool)
    fps = outline.video.fps
    pictures = draw_outlines(frames, masks, marked_frames(outline.beats, fps))
    if form == "mp4":
        write_browser_video(path, pictures, fps)
        return
    step = max(1, round(fps / _GIF_FPS))
    first, *others = (Image.fromarray(picture) for number, picture in enumerate(pictures) if number % step == 0)
    first.save(path, "gif", save_all=True, append_images=others, duration=round(1000 * step / fps), loop=0)


def _fan_alone(sector: Sector, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames without what a screen shows beside the fan."""
    if sector.shape == "fan" or is_data_set_clip(*frames.shape[1:]):
        return sector.crop(frames)
    shown = np.zeros_like(frames)
    if sector.shape == "cropped":
        in_picture, in_square = common_pixels(sector.square, *frames.shape[1:])
        np.multiply(frames[in_picture], sector.mask()[in_square[1:]], out=shown[in_picture])
    return shown


def draw_volumes(outline: VideoOutline) -> Figure:
    """Draw the volume curve of a video with end diastole and end systole of every beat.

    Args:
        outline: Outline of a video.

    Returns:
        The figure; its `savefig` writes PNG, SVG or PDF.
    """
    from ..figure_style import NEUTRAL_COLOUR, SERIES_COLOURS, new_figure, styled  # few processes need matplotlib

    @styled
    def draw() -> Figure:
        reading = f"Ejection fraction {outline.ejection_fraction:.1f} %, mean of {len(outline.beats)} beats."
        subtitle = " ".join([*([reading] if outline.beats else []), *outline.reasons])
        figure = new_figure("Volume of the left ventricle", subtitle, width=7.0, height=3.2)
        panel = figure.subplots()
        seconds = np.arange(len(outline.volumes)) / outline.video.fps
        panel.plot(seconds, outline.volumes, color=SERIES_COLOURS[0], linewidth=1.8)
        for name, frames in (
            ("ED", [beat.ed_frame for beat in outline.beats]),
            ("ES", [beat.es_frame for beat in outline.beats]),
        ):
            colour = tuple(value / 255 for value in _COLOURS[name])
            panel.plot(seconds[frames], outline.volumes[frames], "o", color=colour, label=name, zorder=3)
        top = np.nanmax(outline.volumes, initial=0)
        for beat in outline.beats:
            middle = seconds[[beat.ed_frame, beat.es_frame]].mean()
            text = f"{beat.ejection_fraction:.0f} %"
            panel.text(middle, 0.01 * top, text, color=NEUTRAL_COLOUR, fontsize=9, ha="center", va="bottom")
        unit = "mL" if outline.unit == "mL" else "1000 pixels³"
        panel.set(xlim=(0, seconds[-1]), ylim=(0, 1.12 * top or 1), xlabel="time (s)", ylabel=f"volume ({unit})")
        if outline.beats:
            panel.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, borderpad=0)
        return figure

    return draw()
