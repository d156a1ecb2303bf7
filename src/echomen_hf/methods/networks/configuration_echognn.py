"""Configuration of EchoGNN."""

from huggingface_hub.dataclasses import strict

from ...model.configuration_echomen import ClipConfig, require_positive


@strict
class EchoGNNConfig(ClipConfig):
    r"""Configuration of EchoGNN; the defaults are the published sizes on 64 grey frames.

    Args:
        hidden_sizes (`list[int]`): Number of channels of each residual block; the last is the size of a frame's
            embedding.
        attention_hidden_size (`int`): Width of the layers that find the weights of nodes and edges; chosen so that the
            network has the 1.7 million parameters that EchoGNN is quoted with, since this width is not.
        graph_hidden_sizes (`list[int]`): Width of each graph convolution.
        regression_hidden_size (`int`): Width of the hidden layer of the regression and the classification head.
        class_edges (`list[float]`): Ejection fractions in percent between the classes of the auxiliary classification.
    """

    model_type = "echognn"

    hidden_sizes: list[int] | tuple[int, ...] = (16, 32, 64, 128, 256)
    attention_hidden_size: int = 192
    graph_hidden_sizes: list[int] | tuple[int, ...] = (128, 64, 32)
    regression_hidden_size: int = 16
    class_edges: list[float | int] | tuple[float | int, ...] = (30.0, 40.0, 55.0)
    num_frames: int = 64
    sampling_period: int = 1
    num_channels: int = 1

    def validate_sizes(self):
        """Check the widths, and that frames survive the pooling."""
        require_positive(self, "hidden_sizes", "attention_hidden_size", "graph_hidden_sizes", "regression_hidden_size")
        if self.image_size < 2 ** len(self.hidden_sizes):
            raise ValueError(
                f"Frames of {self.image_size} pixels cannot be halved {len(self.hidden_sizes)} times; enlarge "
                "`image_size` or shorten `hidden_sizes`."
            )
        if not self.class_edges or list(self.class_edges) != sorted(set(self.class_edges)):
            raise ValueError(f"`class_edges` must be ascending, got {self.class_edges}.")


__all__ = ["EchoGNNConfig"]
