import math

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn
from torch.nn import functional as F

from echomen_hf.methods import get_method
from echomen_hf.methods.networks.echognn import (
    EchoGNNLoss,
    EchoGNNOutput,
    PairLayers,
    ResidualBlock,
    normalized_adjacency,
    sinusoidal_positions,
)
from helpers.small_networks import small_config, small_model


class TestGraph:
    def test_adjacency_worked_by_hand(self):
        """Node 2 hears node 1 with weight 0.5: its degree is 1.5, that of node 1 is 1."""
        weights = torch.tensor([[[0.0, 0.5], [0.0, 0.0]]], dtype=torch.float64)
        expected = torch.tensor([[[1.0, 0.0], [0.5 / math.sqrt(1.5), 1 / 1.5]]], dtype=torch.float64)
        torch.testing.assert_close(normalized_adjacency(weights), expected)

    def test_pairs_are_those_of_joined_features(self):
        torch.manual_seed(0)
        layers = PairLayers(3, 5, edge_features=2).double()
        nodes, edges = torch.randn(2, 4, 3).double(), torch.randn(2, 4, 4, 2).double()
        joined = nn.Linear(8, 5).double()
        with torch.no_grad():
            joined.weight.copy_(torch.cat([layers.source.weight, layers.target.weight, layers.edge.weight], dim=1))
            joined.bias.copy_(layers.source.bias)
            pairs = layers(nodes, edges)
            for first in range(4):
                for second in range(4):
                    features = torch.cat([nodes[:, first], nodes[:, second], edges[:, first, second]], dim=1)
                    expected = layers.second(joined(features).relu()).relu()
                    torch.testing.assert_close(pairs[:, first, second], expected)

    def test_positions(self):
        encoding = sinusoidal_positions(torch.zeros(1, 3, 4, dtype=torch.float64))
        for position in range(3):
            slow = position / 100
            expected = [math.sin(position), math.cos(position), math.sin(slow), math.cos(slow)]
            np.testing.assert_allclose(encoding[position], expected, atol=1e-6)


class TestModel:
    @pytest.fixture
    def clips(self):
        return torch.randn(2, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))

    def test_weights_explain_the_estimate(self, clips):
        with torch.no_grad():
            output = small_model("echognn")(clips)
        assert output.node_weights.shape == (2, 8)
        assert output.edge_weights.shape == (2, 8, 8)
        assert output.class_logits.shape == (2, 4)
        assert 0 < output.node_weights.min() < output.node_weights.max() < 1
        off_diagonal = output.edge_weights[:, ~torch.eye(8, dtype=torch.bool)]
        assert 0 < off_diagonal.min() < off_diagonal.max() < 1
        assert output.edge_weights.diagonal(dim1=1, dim2=2).abs().max() == 0
        assert not torch.allclose(output.edge_weights, output.edge_weights.transpose(1, 2))

    def test_estimate_is_the_mean_over_nodes_by_their_weights(self, clips):
        model = small_model("echognn")
        nodes = []
        model.graph[-1].register_forward_hook(lambda module, args, output: nodes.append(output))
        with torch.no_grad():
            output = model(clips)
        weights = output.node_weights.numpy()
        for clip in range(2):
            expected = np.average(nodes[0][clip].numpy(), axis=0, weights=weights[clip])
            np.testing.assert_allclose(output.embedding[clip].numpy(), expected, rtol=1e-4)

    def test_frames_that_a_video_does_not_have_take_no_part(self, clips):
        clips[0, 5:] = 0.0
        model = small_model("echognn")
        with torch.no_grad():
            output = model(clips)
        assert output.node_weights[0, 5:].tolist() == [0.0] * 3
        assert output.edge_weights[0, 5:].abs().max() == 0
        assert output.edge_weights[0, :, 5:].abs().max() == 0
        assert output.node_weights[1].min() > 0
        assert output.node_weights[0, :5].min() > 0

    def test_estimates_lie_between_0_and_100(self, clips):
        with torch.no_grad():
            estimates = small_model("echognn")(1000 * clips).ejection_fraction
        assert 0 <= estimates.min() <= estimates.max() <= 100

    def test_order_of_frames_matters(self, clips):
        model = small_model("echognn")
        with torch.no_grad():
            given, reversed_ = model(clips).ejection_fraction, model(clips.flip(1)).ejection_fraction
        assert not torch.allclose(given, reversed_, atol=1e-5)

    def test_blocks_pool_space_and_not_time(self):
        assert ResidualBlock(1, 4)(torch.zeros(2, 1, 6, 16, 16)).shape == (2, 4, 6, 8, 8)

    def test_frames_too_small_for_the_pooling_are_refused(self):
        with pytest.raises(StrictDataclassClassValidationError, match="cannot be halved 3 times"):
            small_config("echognn", image_size=7)

    def test_edges_of_classes_must_ascend(self):
        with pytest.raises(StrictDataclassClassValidationError, match="`class_edges` must be ascending"):
            small_config("echognn", class_edges=(40.0, 30.0))


class TestLoss:
    model = small_model("echognn")

    def test_worked_by_hand(self):
        """Errors of 5 and 15 points are 0.1 on average; four equal logits cost ln 4."""
        outputs = EchoGNNOutput(regression=torch.tensor([45.0, 65.0]), class_logits=torch.zeros(2, 4))
        value, terms = EchoGNNLoss(None)(self.model, outputs, torch.tensor([50.0, 50.0]), 1)
        assert terms["loss_regression"].item() == pytest.approx(0.1)
        assert terms["loss_classification"].item() == pytest.approx(math.log(4))
        assert value.item() == pytest.approx(0.1 + 0.001 * math.log(4))

    @pytest.mark.parametrize(
        ("label", "expected"), [(0.0, 0), (29.9, 0), (30.0, 1), (39.9, 1), (40.0, 2), (54.9, 2), (55.0, 3), (97.0, 3)]
    )
    def test_classes_are_cut_at_30_40_and_55(self, label, expected):
        logits = torch.zeros(1, 4)
        logits[0, expected] = 50.0
        outputs = EchoGNNOutput(regression=torch.tensor([label]), class_logits=logits)
        value, _ = EchoGNNLoss(None)(self.model, outputs, torch.tensor([label]), 1)
        assert value.item() == pytest.approx(0, abs=1e-6)

    def test_negative_weight_is_refused(self):
        assert get_method("echognn").options == {"classification_weight": 0.001}
        with pytest.raises(ValueError, match="`classification_weight` must not be negative"):
            EchoGNNLoss(None, classification_weight=-1.0)


@pytest.mark.parametrize("size", [8, 9])
def test_pooling_is_that_of_max_pool3d(size):
    torch.manual_seed(0)
    block = ResidualBlock(2, 3).eval()
    clips = torch.randn(2, 2, 4, size, size, requires_grad=True)
    hidden_state = F.relu(block.convolution(clips) + block.projection(clips))
    expected, found = F.max_pool3d(hidden_state, (1, 2, 2)), block(clips)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape)
    gradients = [
        torch.autograd.grad((output * weights).sum(), clips, retain_graph=True)[0] for output in (found, expected)
    ]
    assert torch.equal(*gradients)
