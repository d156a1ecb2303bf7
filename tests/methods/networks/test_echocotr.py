import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from echomen_hf.methods import get_method
from echomen_hf.methods.networks.configuration_uniformer import UniFormerConfig
from echomen_hf.methods.networks.echocotr import GlobalBlock, LocalBlock, UniFormerModel
from helpers.small_networks import small_config, small_model


def shapes_of(model, clips):
    """Shapes behind the stages of a model."""
    shapes = []
    for stage in model.stages:
        stage.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[1:])))
    model(clips)
    return shapes


class TestPublishedNetwork:
    def test_stages(self):
        """36 frames of 112 x 112 become 18 of 28 x 28, and space is halved from stage to stage."""
        with torch.device("meta"):
            model = UniFormerModel(UniFormerConfig())
            shapes = shapes_of(model, torch.zeros(1, 36, 3, 112, 112))
        assert shapes == [(64, 18, 28, 28), (128, 18, 14, 14), (320, 18, 7, 7), (512, 18, 3, 3)]
        assert [len(stage) for stage in model.stages] == [3, 4, 8, 3]
        assert [type(stage[0]) for stage in model.stages] == [LocalBlock, LocalBlock, GlobalBlock, GlobalBlock]
        assert [stage[0].num_heads for stage in model.stages[2:]] == [5, 8]

    def test_loss_is_the_squared_error(self):
        assert get_method("echocotr").options == {}


class TestBlocks:
    def test_attention_is_that_of_a_float64_reference(self):
        torch.manual_seed(0)
        block = GlobalBlock(16, small_config("echocotr")).double()  # two heads of 8
        tokens = torch.randn(2, 5, 16).double()
        query, key, value = block.qkv(tokens).chunk(3, dim=-1)
        heads = []
        for head in (slice(0, 8), slice(8, 16)):
            affinity = (query[..., head] @ key[..., head].transpose(1, 2) / 8**0.5).softmax(dim=-1)
            heads.append(affinity @ value[..., head])
        expected = block.output(torch.cat(heads, dim=-1))
        torch.testing.assert_close(block._attend(tokens), expected)

    def test_local_block_reaches_its_neighbours_only(self):
        """Position encoding and relations reach one pixel and one frame each, with kernels of 3."""
        torch.manual_seed(0)
        block = LocalBlock(4, small_config("echocotr")).eval()
        clips = torch.randn(1, 4, 9, 9, 9, requires_grad=True)
        block(clips)[0, :, 4, 4, 4].sum().backward()
        reached = clips.grad[0].abs().sum(dim=0).nonzero()
        assert reached.min() == 2
        assert reached.max() == 6

    def test_global_block_reaches_everything(self):
        torch.manual_seed(0)
        block = GlobalBlock(8, small_config("echocotr")).eval()
        clips = torch.randn(1, 8, 4, 5, 5, requires_grad=True)
        block(clips)[0, :, 0, 0, 0].sum().backward()
        assert (clips.grad[0].abs().sum(dim=0) > 0).all()


class TestModel:
    def test_initial_estimate_is_near_the_mean(self):
        with torch.no_grad():
            estimates = small_model("echocotr")(torch.randn(2, 8, 1, 32, 32)).ejection_fraction
        torch.testing.assert_close(estimates, torch.full((2,), 55.6), rtol=0, atol=1.0)

    def test_initial_activations_neither_vanish_nor_explode(self):
        torch.manual_seed(0)
        model = UniFormerModel(UniFormerConfig(depths=(3, 4, 8, 3), hidden_sizes=(8, 8, 16, 16), head_dim=8)).train()
        spread = []
        model.norm.register_forward_pre_hook(lambda module, args: spread.append(args[0].std().item()))
        with torch.no_grad():
            model(torch.randn(2, 8, 3, 32, 32))
        assert 0.1 < spread[0] < 100

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"head_dim": 5}, "multiples of `head_dim` 5, got .8, 16. channels"),
            ({"local_kernel_size": 4}, "`local_kernel_size` must be odd"),
            ({"num_local_stages": 4}, "`num_local_stages` lies between 0 and 3"),
            ({"stem_stride": (2, 4)}, "`stem_stride` is .time, height, width."),
            ({"depths": (1, 1)}, "need the same length"),
            ({"image_size": 7}, "too small for 3 stages"),
        ],
    )
    def test_sizes_that_do_not_fit_are_refused(self, changes, message):
        with pytest.raises(StrictDataclassClassValidationError, match=message):
            small_config("echocotr", **changes)
