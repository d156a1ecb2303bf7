"""A device that is none: tensors on it compute on the CPU, and what an accelerator would refuse or wait for shows.

It has no double precision, as Apple's GPUs, and no operation takes tensors of the CPU and of the device together.
PyTorch knows it as `meta`, the only name for which automatic differentiation needs no driver.
"""

import contextlib
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only


DEVICE = torch.device("meta")
aten = torch.ops.aten

# Operations whose result, or its size, the processor has to know before it goes on.
WAITING = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
COPIES = {aten._to_copy.default, aten.copy_.default}


class OnDevice(torch.Tensor):
    """A tensor of the device, whose numbers lie in `inner`, on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype == torch.float64:
            raise TypeError("The device has no double precision (float64).")
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=DEVICE, **layout)
        tensor.inner = inner
        return tensor

    def __repr__(self):
        return f"OnDevice({self.inner})"

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"{function} ran outside of the context of the device.")


class PretendDevice(TorchDispatchMode):
    """Runs what is asked of the device on the CPU, and counts in `waits` how often the processor waits for it.

    `operations` are the names of all that ran there.

    What it waits for is what `torch.cuda.set_sync_debug_mode` tells of: reading values, sizes that follow from values,
    and copies in either direction that are not said to overlap.
    """

    def __init__(self):
        super().__init__()
        self.waits = Counter()
        self.operations = set()

    def __enter__(self):
        self._originals = torch.autocast, torch.tensor
        # Mixed precision is unknown to this device; nothing here depends on it.
        torch.autocast = self._autocast
        # It makes its tensors without asking any mode.
        torch.tensor = self._tensor
        return super().__enter__()

    def _autocast(self, kind, *args, **options):
        return contextlib.nullcontext() if kind == DEVICE.type else self._originals[0](kind, *args, **options)

    def _tensor(self, data, *, device=None, **options):
        made = self._originals[1](data, **options)
        return made if device is None else made.to(device)

    @contextlib.contextmanager
    def again(self):
        super().__enter__()
        try:
            yield
        finally:
            super().__exit__(None, None, None)

    def __exit__(self, *error):
        torch.autocast, torch.tensor = self._originals
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if torch.is_inference_mode_enabled():
            # There, tensors that wrap others cannot be viewed, and operations arrive before they are taken apart.
            with torch.inference_mode(False), torch.no_grad(), self.again():
                return function(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        assert all(isinstance(value, OnDevice) or value.device != DEVICE for value in tensors), "lost its numbers"
        from_device = any(isinstance(value, OnDevice) for value in tensors)
        asked = kwargs.get("device")
        to_device = torch.device(asked) == DEVICE if asked is not None else from_device
        if not from_device and not to_device:
            return function(*args, **kwargs)
        self.operations.add(function.overloadpacket.__name__)
        if function in COPIES:
            self._count_copy(function, args, kwargs, to_device)
        else:
            if any(not isinstance(value, OnDevice) and value.ndim for value in tensors):
                raise RuntimeError(f"{function} got tensors of the CPU and of the device.")
            by_mask = function in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
                index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
            )
            if function in WAITING or by_mask:
                self.waits[str(function)] += 1
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        result = function(
            *tree_map_only(OnDevice, lambda tensor: tensor.inner, args),
            **tree_map_only(OnDevice, lambda tensor: tensor.inner, kwargs),
        )
        if function._schema.is_mutable and isinstance(result, torch.Tensor):
            return kwargs.get("out", args[0])
        return tree_map_only(torch.Tensor, OnDevice, result) if to_device else result

    def _count_copy(self, function, args, kwargs, to_device):
        if function is aten.copy_.default:
            ends, overlaps = {isinstance(value, OnDevice) for value in args[:2]}, args[2:] == (True,)
        else:
            ends, overlaps = {isinstance(args[0], OnDevice), to_device}, kwargs.get("non_blocking", False)
        if len(ends) == 2 and not (overlaps and to_device):
            self.waits[f"copy {'to' if to_device else 'from'} the device"] += 1
