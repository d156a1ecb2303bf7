"""Configuration of UniFormer."""

from huggingface_hub.dataclasses import strict

from ...model.configuration_echomen import ClipConfig, require_positive


@strict
class UniFormerConfig(ClipConfig):
    r"""Configuration of UniFormer (Li et al. 2022) with a regression head.

    The defaults are EchoCoTr-S: UniFormer-S on 36 frames, every 4th, of 112 x 112 pixels.

    Args:
        depths (`list[int]`): Number of blocks in each stage.
        hidden_sizes (`list[int]`): Number of channels of each stage.
        num_local_stages (`int`): The first stages relate neighbouring pixels by convolutions, the others all pixels by
            self-attention.
        local_kernel_size (`int`): Frames and pixels across the neighbourhood of the first stages; an odd number.
        head_dim (`int`): Channels of an attention head.
        mlp_ratio (`int`): Width of the hidden layer of the feed-forward networks, as a multiple of the channels.
        stem_stride (`list[int]`): Stride of the stem in time, height and width.
        layer_norm_eps (`float`): Epsilon of the layer normalisation layers.
        initializer_range (`float`): Standard deviation of the initial weights of linear layers.
        initial_ejection_fraction (`float`): Initial bias of the regression head, in percent.
        head_initializer_range (`float`): Standard deviation of the initial weights of the regression head.
    """

    model_type = "echo_uniformer"

    depths: list[int] | tuple[int, ...] = (3, 4, 8, 3)
    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 320, 512)
    num_local_stages: int = 2
    local_kernel_size: int = 5
    head_dim: int = 64
    mlp_ratio: int = 4
    stem_stride: list[int] | tuple[int, ...] = (2, 4, 4)
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    initial_ejection_fraction: float | int = 55.6
    head_initializer_range: float | int = 0.01
    num_frames: int = 36
    sampling_period: int = 4

    @property
    def embedding_size(self) -> int:
        """Size of the pooled feature."""
        return self.hidden_sizes[-1]

    def validate_sizes(self):
        """Check that the stages fit each other and the clip."""
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(f"`depths` {self.depths} and `hidden_sizes` {self.hidden_sizes} need the same length.")
        require_positive(self, "depths", "hidden_sizes", "head_dim", "mlp_ratio", "stem_stride")
        if not 0 <= self.num_local_stages <= len(self.depths):
            raise ValueError(f"`num_local_stages` lies between 0 and {len(self.depths)}, got {self.num_local_stages}.")
        if self.local_kernel_size % 2 == 0 or self.local_kernel_size < 1:
            raise ValueError(f"`local_kernel_size` must be odd, got {self.local_kernel_size}.")
        odd = [size for size in self.hidden_sizes[self.num_local_stages :] if size % self.head_dim]
        if odd:
            raise ValueError(
                f"Stages with attention need multiples of `head_dim` {self.head_dim}, got {odd} channels."
            )
        if len(self.stem_stride) != 3:
            raise ValueError(f"`stem_stride` is (time, height, width), got {self.stem_stride}.")
        smallest = self.image_size // max(self.stem_stride[1:]) // 2 ** (len(self.depths) - 1)
        if smallest < 1:
            raise ValueError(f"Frames of {self.image_size} pixels are too small for {len(self.depths)} stages.")


__all__ = ["UniFormerConfig"]
