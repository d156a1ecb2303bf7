"""Writing small videos for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def encode_video(
    path: Path,
    frames: NDArray[np.uint8],
    fps: int | Fraction = 50,
    codec: str = "mjpeg",
    pix_fmt: str = "yuvj420p",
    source_format: str = "gray",
    container: str | None = None,
    **options: str,
) -> Path:
    """Write frames laid out as `source_format`: (T, H, W) for gray, (T, H, W, 3) for rgb24, planes for yuv420p."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.pix_fmt, stream.options = pix_fmt, options
        first = av.VideoFrame.from_ndarray(frames[0], format=source_format)
        stream.width, stream.height = first.width, first.height
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format=source_format)
            output.mux(stream.encode(frame.reformat(format=pix_fmt)))
        output.mux(stream.encode())
    return path


def encode_images(frames: NDArray[np.uint8], codec: str, pix_fmt: str = "yuv420p", **options: str) -> list[bytes]:
    """Packets of gray frames (T, H, W), one each."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width = frames.shape[1:]
    encoder.pix_fmt, encoder.time_base, encoder.options = pix_fmt, Fraction(1, 50), options
    packets = []
    for image in frames:
        packets += encoder.encode(av.VideoFrame.from_ndarray(image, format="gray").reformat(format=pix_fmt))
    return [bytes(packet) for packet in (*packets, *encoder.encode(None))]


def write_matroska(
    path: Path,
    images: Sequence[bytes],
    size: tuple[int, int],
    codec: str = "mjpeg",
    moments: Sequence[int] | None = None,
) -> Path:
    """Encoded images of a height and width as they are, at moments in milliseconds, else 50 per second."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=50)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number, image in enumerate(images):
            packet = av.Packet(image)
            packet.pts = packet.dts = number * 20 if moments is None else moments[number]
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
            output.mux(packet)
    return path


def gray_ramp(num_frames: int, height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """Frame t is uniformly 5 t on its left half and 255 - 5 t on its right: shape (num_frames, height, width)."""
    levels = (5 * np.arange(num_frames) % 256).astype(np.uint8)
    frames = np.empty((num_frames, height, width), np.uint8)
    frames[:, :, : width // 2] = levels[:, None, None]
    frames[:, :, width // 2 :] = 255 - levels[:, None, None]
    return frames


def beating_texture(num_frames: int) -> NDArray[np.uint8]:
    """Speckle over a moving pattern, so that every frame and pixel differs: shape (num_frames, 48, 64)."""
    time, rows, columns = np.ogrid[:num_frames, :48, :64]
    noise = np.random.default_rng(0).normal(0, 12, (num_frames, 48, 64))
    pattern = 125 + 90 * np.sin(rows / 6 + time / 5) * np.cos(columns / 9 - time / 7)
    return np.clip(pattern + noise, 0, 255).astype(np.uint8)
