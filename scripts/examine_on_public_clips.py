"""Compare a model and the packaged outliner with the nine clips that EchoNet-Dynamic's public repository shows.

    git clone https://github.com/echonet/dynamic
    python scripts/examine_on_public_clips.py dynamic/docs/media --output docs/small_model/public_clips.md

The left half of each video is the clip, and the right half the same clip with the left ventricle filled in blue, as
EchoNet-Dynamic's segmentation model drew it. The ejection fraction of the drawing stands in for that of an expert.
Nine clips are a check, and nothing to choose with; no frame of them belongs in this repository.
"""

import argparse
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter1d
from scipy.signal import find_peaks
from scipy.stats import spearmanr

from echomen_hf import Predictor
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.cli.command_line import run_script
from echomen_hf.evaluation.outline_evaluation import dice
from echomen_hf.evaluation.report import markdown_table
from echomen_hf.inference import VideoPrediction, predict_video
from echomen_hf.model.echo_video_echomen import EchoVideo
from echomen_hf.outline import VideoOutline, outline_video, shows_other_view
from echomen_hf.outline.measurements import clean_masks
from echomen_hf.runs.files import weights_checksum, write_text


LABEL = "Nine public clips; the reference is computed from outlines that a segmentation model drew, not from experts."
LOW_GROUP = 3
_SMOOTHING_SECONDS = 0.04
_SHORTEST_BEAT = 0.4  # seconds


@dataclass(frozen=True)
class PublicClip:
    """A clip, the outlines drawn in it, bool, shape (T, H, W), and their ejection fraction in percent."""

    name: str
    video: EchoVideo
    masks: NDArray[np.bool_]
    ejection_fraction: float


def main(arguments: list[str] | None = None) -> None:
    """Print the comparison, and write it.

    Args:
        arguments: Command line without the name of the program.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("media_dir", type=Path, metavar="MEDIA_DIR", help="Folder docs/media of a clone.")
    parser.add_argument("--model", type=Path, help="Folder of the model. Defaults to the small model.")
    parser.add_argument("--output", type=Path, help="Markdown file to write.")
    args = parser.parse_args(arguments)
    paths = sorted(args.media_dir.glob("0X*.mp4"))
    if not paths:
        raise ValueError(f"{args.media_dir} holds no clip 0X….mp4; give the folder docs/media of a clone.")
    clips = [read_public_clip(path) for path in paths]
    predictor = Predictor(args.model)
    predictions = [
        predict_video(
            predictor.model,
            predictor.processor,
            clip.video,
            engine=predictor.engine,
            is_other_view=shows_other_view(clip.video),
        )
        for clip in clips
    ]
    text = report(clips, predictions, [outline_video(clip.video) for clip in clips])
    print(text)
    if args.output is not None:
        when = f"Measured on {date.today()}"
        if weights := weights_checksum(args.model or SMALL_MODEL_FOLDER):
            when += f" with weights whose SHA-256 begins with {weights[:12]}"
        write_text(args.output, f"# The small model on public clips\n\n{when}.\n\n{text}\n")


def read_public_clip(path: Path) -> PublicClip:
    """Cut a video into its halves, and measure the outline drawn in the right one.

    Args:
        path: Video of the folder docs/media.

    Returns:
        The clip.

    Raises:
        ValueError: If the video has no halves, or no outline is drawn in it.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 50)
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    width = frames.shape[2] // 2
    red, blue = frames[:, :, width:, 0].astype(int), frames[:, :, width:, 2].astype(int)
    filled = blue - red > 100  # (T, H, W)
    if frames.shape[2] != 2 * frames.shape[1] or not filled.any(axis=(1, 2)).all():
        raise ValueError(f"{path.name} is not a clip beside the same clip with its left ventricle in blue.")
    gray = frames[:, :, :width].mean(axis=3).round().astype(np.uint8)
    masks = clean_masks(filled)
    return PublicClip(path.stem, EchoVideo(gray, fps, path.name), masks, ejection_fraction_of(filled, fps))


def ejection_fraction_of(masks: NDArray[np.bool_], fps: float) -> float:
    """Mean ejection fraction of the beats of a filled outline, by the area-length method.

    Args:
        masks: Pixels inside the left ventricle, shape (T, H, W).
        fps: Frames per second.

    Returns:
        Ejection fraction in percent.
    """
    volumes = gaussian_filter1d([_volume(mask) for mask in masks], _SMOOTHING_SECONDS * fps)
    distance = _SHORTEST_BEAT * fps
    prominence = 0.2 * np.ptp(volumes)
    largest = find_peaks(volumes, distance=distance, prominence=prominence)[0]
    smallest = find_peaks(-volumes, distance=distance, prominence=prominence)[0]
    if not len(largest) or not len(smallest):
        return float(100 * (1 - volumes.min() / volumes.max()))
    # Every end of systole belongs to the end of diastole before it, or to the next one at the start of the clip.
    beats = []
    for end_systole in smallest:
        before = largest[largest < end_systole]
        end_diastole = before[-1] if len(before) else largest[0]
        beats.append(1 - volumes[end_systole] / volumes[end_diastole])
    return float(100 * np.mean(beats))


def _volume(mask: NDArray[np.bool_]) -> float:
    """Area squared over length, to which the volume of an ellipsoid is proportional."""
    points = np.argwhere(mask).astype(float)
    points -= points.mean(axis=0)
    along = points @ np.linalg.svd(points, full_matrices=False)[2][0]
    return len(points) ** 2 / np.ptp(along)


def of_area(mask: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    """Shrink or grow a mask by the same distance everywhere.

    Args:
        mask: Mask, shape (H, W).
        area: Pixels that it is to have, nearly; pixels at the same distance come or go together.

    Returns:
        The mask of that area.
    """
    depth = distance_transform_edt(mask) - distance_transform_edt(~mask)
    return depth >= np.sort(depth, axis=None)[-area]


def report(clips: list[PublicClip], predictions: list[VideoPrediction], outlines: list[VideoOutline]) -> str:
    """Describe how far the model and the drawn outlines agree, and how far the outliner's do.

    Args:
        clips: Clips.
        predictions: Predictions of the clips.
        outlines: What the outliner marked in the clips.

    Returns:
        Markdown.
    """
    drawn = np.array([clip.ejection_fraction for clip in clips])
    found = np.array([prediction.ejection_fraction for prediction in predictions])
    overlaps = [dice(outline.masks, clip.masks).mean() for clip, outline in zip(clips, outlines, strict=True)]
    sizes = [outline.masks.sum() / clip.masks.sum() for clip, outline in zip(clips, outlines, strict=True)]
    of_same_size = [
        np.mean([dice(of_area(own, other.sum()), other) for own, other in zip(outline.masks, clip.masks, strict=True)])
        for clip, outline in zip(clips, outlines, strict=True)
    ]
    outlined = np.mean([outline.masks.any(axis=(1, 2)).mean() for outline in outlines])
    rows = [
        [
            clip.name,
            f"{clip.ejection_fraction:.1f}",
            f"{prediction.ejection_fraction:.1f}",
            f"{outline.ejection_fraction:.1f}",
            f"{overlap:.2f}",
            prediction.quality,
        ]
        for clip, prediction, outline, overlap in zip(clips, predictions, outlines, overlaps, strict=True)
    ]
    order = np.argsort(drawn)
    low, others = found[order[:LOW_GROUP]], found[order[LOW_GROUP:]]
    inside = [p.interval[0] <= ef <= p.interval[1] for p, ef in zip(predictions, drawn, strict=True) if p.interval]
    separated = "are" if low.max() < others.min() else "are not"
    titles = ["Clip", "EF of the drawing (%)", "EF of the model (%)", "EF of the outliner (%)", "Dice", "Quality"]
    lines = [
        LABEL,
        "",
        markdown_table(titles, rows),
        "",
        f"- Spearman correlation {spearmanr(drawn, found).statistic:.2f}",
        f"- mean absolute difference {np.abs(found - drawn).mean():.1f} points, mean difference "
        f"{(found - drawn).mean():+.1f}",
        f"- the {LOW_GROUP} lowest of the outlines {separated} below all others",
        f"- {sum(inside)} of {len(inside)} prediction intervals hold the EF of the outlines",
        f"- Dice coefficient of the outliner's masks with the drawn ones: mean {np.mean(overlaps):.2f}, lowest "
        f"{min(overlaps):.2f}; they are {np.mean(sizes):.2f} times as large, and {outlined:.0%} of the frames have "
        "one",
        f"- if every mask is shrunk or grown to the area of the drawn one: mean {np.mean(of_same_size):.2f}, lowest "
        f"{min(of_same_size):.2f}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
