import numpy as np

from echomen_hf.app.saliency_overlay import overlay_saliency


def test_overlay_leaves_what_was_not_looked_at_gray():
    frame = np.full((40, 40), 100, np.uint8)
    saliency = np.zeros((20, 20), np.float32)
    saliency[:6, :6] = 1
    (painted,) = overlay_saliency([frame], [saliency])
    assert painted.shape == (40, 40, 3)
    assert (painted[25:, 25:] == 100).all()
    red, _, blue = painted[3, 3].astype(int)
    assert red - blue > 50
