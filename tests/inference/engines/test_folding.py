import pytest
import torch
from torch import nn

from echomen_hf.inference.engines.folding import fold_batch_norms, has_equal_channels, sum_input_channels


@pytest.fixture
def clips():
    return torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_folded_encoder_gives_the_same_embedding(experienced_model, clips):
    encoder = experienced_model.encoder.double()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    folded = fold_batch_norms(encoder)
    assert not [layer for layer in folded.modules() if isinstance(layer, nn.BatchNorm3d)]
    with torch.no_grad():
        expected = encoder(clips)
        found = folded(clips)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_batch_statistics_are_folded_and_not_dropped(experienced_model, clips):
    encoder = experienced_model.encoder.double()
    plain = fold_batch_norms(encoder)
    for layer in plain.modules():
        if isinstance(layer, nn.Conv3d):
            layer.bias.data.zero_()
    with torch.no_grad():
        assert (plain(clips) - encoder(clips)).abs().max() > 0.01


def test_encoder_in_training_mode_is_folded_by_its_running_statistics(experienced_model, clips):
    encoder = experienced_model.encoder.double()
    with torch.no_grad():
        expected = encoder.eval()(clips)
        found = fold_batch_norms(encoder.train())(clips)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert encoder.training


def test_batch_normalisation_of_something_else_is_refused(experienced_model):
    experienced_model.encoder.stem[0] = nn.Identity()
    with pytest.raises(ValueError, match="follows Identity, no convolution"):
        fold_batch_norms(experienced_model.encoder)


def test_one_channel_stands_for_three_equal_ones(experienced_model, clips):
    encoder = experienced_model.encoder.double()
    gray = clips[:, :, :1]
    folded = fold_batch_norms(encoder)
    sum_input_channels(folded)
    with torch.no_grad():
        expected = encoder(gray.expand(-1, -1, 3, -1, -1))
        torch.testing.assert_close(folded(gray), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("mean", "std", "equal"),
    [
        ([32.6], [49.9], True),
        ([32.6, 32.6, 32.6], [49.9], True),
        ([32.6, 32.6, 32.7], [49.9], False),
        ([32.6], [49.9, 49.9, 50.0], False),
    ],
)
def test_statistics_tell_whether_channels_are_equal(three_channel_processor, mean, std, equal):
    three_channel_processor.image_mean, three_channel_processor.image_std = mean, std
    assert has_equal_channels(three_channel_processor) is equal
    clip = three_channel_processor.normalize_frames(torch.arange(6, dtype=torch.uint8).view(1, 2, 3))
    assert torch.equal(clip[:, :1].expand_as(clip), clip) is equal


def test_statistics_that_are_not_applied_do_not_count(three_channel_processor):
    three_channel_processor.image_mean, three_channel_processor.do_normalize = [1.0, 2.0, 3.0], False
    assert has_equal_channels(three_channel_processor)
