import re

import av
import numpy as np
import pytest

from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.runs.files import weights_checksum
from echomen_hf.simulation import simulate_echo


FPS = 50


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("examine_on_public_clips")


def beating_ellipses(ejection_fraction, num_frames=130, beat=43):
    """Masks of an ellipse that shrinks across its long axis and keeps its length."""
    contraction = (1 - np.cos(2 * np.pi * np.arange(num_frames) / beat)) / 2
    width = 22 * np.sqrt(1 - ejection_fraction / 100 * contraction)
    row, column = np.ogrid[:112, :112]
    return np.stack([((row - 55) / 34) ** 2 + ((column - 56) / w) ** 2 <= 1 for w in width])


def write_public_clip(path, ejection_fraction, seed):
    masks = beating_ellipses(ejection_fraction)
    clip = simulate_echo(seed, ejection_fraction, num_frames=len(masks)).frames
    frames = np.repeat(np.concatenate([clip, clip], axis=2)[..., None], 3, axis=3)
    frames[:, :, 112:][masks] = (0, 0, 255)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.bit_rate = 224, 112, 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


# Every frame is smoothed a little, so the largest and smallest volumes come out nearer to each other.
@pytest.mark.parametrize("ejection_fraction", [20.0, 45.0, 65.0])
def test_ejection_fraction_of_an_ellipse_that_keeps_its_length(script, ejection_fraction):
    # The volume of an ellipsoid goes with the square of its width.
    assert script.ejection_fraction_of(beating_ellipses(ejection_fraction), FPS) == pytest.approx(
        ejection_fraction, abs=2.5
    )


def disk(radius):
    row, column = np.ogrid[:112, :112]
    return (row - 55) ** 2 + (column - 60) ** 2 <= radius**2


@pytest.mark.parametrize("radius", [14, 20, 26])
def test_a_mask_is_brought_to_an_area_without_moving_it(script, radius):
    own, wanted = disk(20), disk(radius)
    found = script.of_area(own, wanted.sum())
    assert found.sum() == pytest.approx(wanted.sum(), rel=0.05)
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.97


def test_report_on_clips_beside_their_outlines(script, tmp_path, capsys):
    for number, ejection_fraction in enumerate((20.0, 35.0, 50.0, 65.0)):
        write_public_clip(tmp_path / f"0X{number}.mp4", ejection_fraction, number)
    script.main([str(tmp_path), "--output", str(tmp_path / "o.md")])
    text = (tmp_path / "o.md").read_text()
    assert "not from experts" in text
    assert f"begins with {weights_checksum(SMALL_MODEL_FOLDER)[:12]}." in text
    drawn = [float(line.split("|")[2]) for line in text.splitlines() if line.startswith("| 0X")]
    assert drawn == pytest.approx([20, 35, 50, 65], abs=3)
    assert "the 3 lowest of the outlines are" in text
    dice = [float(line.split("|")[5]) for line in text.splitlines() if line.startswith("| 0X")]
    mean = float(re.search(r"mean (0\.\d\d), lowest", text)[1])
    assert mean == pytest.approx(np.mean(dice), abs=0.01)
    assert f"lowest {min(dice):.2f}" in text
    assert 0 < min(dice) < max(dice) < 1
    assert text.split("\n\n", 2)[2].strip() in capsys.readouterr().out


def test_a_clip_without_an_outline_is_named(script, tmp_path):
    with pytest.raises(ValueError, match="holds no clip"):
        script.main([str(tmp_path)])
    frames = np.zeros((10, 112, 224, 3), np.uint8)
    with av.open(str(tmp_path / "0X1.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = 224, 112
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"0X1\.mp4 is not a clip beside"):
        script.main([str(tmp_path)])
