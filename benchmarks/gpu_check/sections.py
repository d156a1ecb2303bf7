"""Sections of the check; each returns what it found, and raises an error where something does not run at all."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from transformers import TrainerCallback

from benchmarks.speed.arithmetic import step_memory
from echomen_hf import EchoMENConfig, EchoMENModel, EchoMENTrainer, EchoMENVideoProcessor, Predictor
from echomen_hf.checkpoints import SMALL_MODEL_FOLDER
from echomen_hf.data import EvaluationClips, TrainingClips, load_echonet_dynamic
from echomen_hf.inference import load_checkpoint
from echomen_hf.inference.engines.torch_engine import measured_forms
from echomen_hf.losses import LDWSupConLoss, squared_error
from echomen_hf.methods import get_method, list_methods
from echomen_hf.model.float32_precision_echomen import float32_precision
from echomen_hf.model.pipeline_echomen import EjectionFractionPipeline
from echomen_hf.runs.installed_versions import installed_versions
from echomen_hf.training import EchoMENTrainingArguments, fit
from echomen_hf.training.embeddings import TrainingEmbeddings, embed
from echomen_hf.training.recipes import RECIPES_FOLDER
from echomen_hf.training.stage_2 import Stage2


__all__ = ["SECTIONS"]

Result = dict[str, Any]
TINY = {"depths": (1, 1), "hidden_sizes": (8, 16), "num_channels": 1, "num_frames": 8, "image_size": 32}


class Variant(NamedTuple):
    """A way of computing a training step."""

    convolutions: str = "ieee"
    autocast: torch.dtype | None = None
    channels_last: bool = False
    checkpointing: bool = False

    def __str__(self) -> str:
        precision = self.convolutions if self.autocast is None else str(self.autocast).removeprefix("torch.")
        switches = {"channels_last": self.channels_last, "checkpointing": self.checkpointing}
        return " ".join([precision, *(name for name, is_on in switches.items() if is_on)])

    @contextmanager
    def __call__(self, device: str):
        with float32_precision(self.convolutions), torch.autocast(device, self.autocast, self.autocast is not None):
            yield

    def apply(self, model: EchoMENModel) -> EchoMENModel:
        """Set the layout and the checkpointing of a model."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last_3d)
        if self.checkpointing:
            model.activation_checkpointing_enable()
        return model


VARIANTS = [
    Variant(convolutions, autocast, channels_last)
    for channels_last in (False, True)
    for convolutions, autocast in (("ieee", None), ("tf32", None), ("tf32", torch.bfloat16), ("tf32", torch.float16))
]


def attempt(compute: Callable[[], Any]) -> Any:
    """Compute something, or say why that does not go."""
    try:
        return compute()
    except Exception as error:  # one way that fails must not hide the results of the others
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def network(tiny: bool) -> EchoMENConfig:
    """Make the configuration of the paper, or a small one."""
    return EchoMENConfig(**TINY) if tiny else EchoMENConfig()


def random_clips(config: EchoMENConfig, count: int, device: str) -> torch.Tensor:
    """Draw clips of noise, (count, T, C, H, W)."""
    shape = (count, config.num_frames, config.num_channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def synchronise(device: str) -> None:
    """Wait until the device has done everything."""
    if device != "cpu":
        torch.accelerator.synchronize()


def versions(device: str, tiny: bool, data_dir: Path) -> Result:
    """Versions, the card, and PyTorch's switches as they are without anybody's choice."""
    backends: Any = torch.backends
    found: Result = {
        "packages": installed_versions(
            ["torch", "torchvision", "transformers", "accelerate", "datasets", "echomen-hf"]
        ),
        "supported": [line for line in requires("echomen-hf") or [] if line.startswith(("torch", "transf", "accel"))],
        "cuda": torch.version.cuda,
        "cudnn": backends.cudnn.version(),
        "switches": {
            "matmul": backends.cuda.matmul.fp32_precision,
            "convolutions": backends.cudnn.conv.fp32_precision,
            "cudnn.benchmark": backends.cudnn.benchmark,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        },
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        found["card"] = {"name": card.name, "gib": card.total_memory / 2**30, "capability": [card.major, card.minor]}
        found["bf16"] = torch.cuda.is_bf16_supported()
    return found


def arguments(folder: str, device: str, **changes: Any) -> EchoMENTrainingArguments:
    """Make arguments of a training of one step."""
    settings = {
        "output_dir": folder,
        "max_steps": 1,
        "total_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "use_cpu": device == "cpu",
    }
    return EchoMENTrainingArguments(**{**settings, **changes})


def methods(device: str, tiny: bool, data_dir: Path) -> Result:
    """Every method for one step and one evaluation in every precision."""
    recipe = yaml.safe_load((RECIPES_FOLDER / "compare.yaml").read_text(encoding="utf-8"))
    videos = load_echonet_dynamic(data_dir)
    names = ["echomen", "echognn"] if tiny else list_methods()

    def step(name: str, precision: str) -> Result:
        method = get_method(name)
        own = recipe["method_model_config"].get(name, recipe["model_config"])
        with tempfile.TemporaryDirectory() as folder:
            switches = {} if precision == "fp32" else {precision: True}
            args = method.training_arguments(arguments(folder, device, metric_for_best_model="loss", **switches))
            found = {}
            for stage in args.stages:
                of_stage = args.for_stage(stage, folder)
                torch.manual_seed(0)
                model: Any = method.model_class(method.make_config(own))
                processor = method.processor_class.for_model(model.config)
                views = of_stage.num_views if stage == 1 else 1
                trainer = method.make_trainer()(
                    model=model,
                    args=of_stage,
                    train_dataset=method.training_clips(videos["train"], processor, views, 4),
                    eval_dataset=EvaluationClips(videos["validation"], processor, "center"),
                    processing_class=processor,
                )
                loss = trainer.train().training_loss
                found[f"stage {stage}"] = {"loss": loss, "mae": trainer.evaluate()["eval_mae"]}
        return found

    return {
        name: {precision: attempt(lambda: step(name, precision)) for precision in ("fp32", "bf16", "fp16")}  # noqa: B023
        for name in names
    }


def gradients(device: str, tiny: bool, data_dir: Path) -> Result:
    """Relative errors of the gradients of R(2+1)D-18 at the shape of training, against IEEE arithmetic clip by clip.

    Batch statistics are fixed, since those of noise would magnify rounding.
    """
    config = network(tiny)
    clips = random_clips(config, 4 if tiny else 40, device)
    torch.manual_seed(0)
    model = EchoMENModel(config).to(device).eval()
    weights = dict(model.encoder.named_parameters())

    def compute(variant: Variant, parts: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        variant.apply(model)
        total = [torch.zeros_like(weight) for weight in weights.values()]
        for part in parts:
            with variant(device):
                loss = model(pixel_values=part).regression.sum()
            found = torch.autograd.grad(loss, list(weights.values()))
            total = [one + other for one, other in zip(total, found)]
        return total

    exact = compute(Variant(), clips.split(1))

    def errors(variant: Variant) -> Result:
        found = compute(variant, (clips,))
        of_weights = {
            name: float((one - other).norm() / other.norm()) for name, one, other in zip(weights, found, exact)
        }
        worst = max(of_weights, key=lambda name: of_weights[name])
        squares = [sum(float(part.square().sum()) for part in parts) for parts in (exact,)]
        whole = sum(float((one - other).square().sum()) for one, other in zip(found, exact)) / squares[0]
        return {"all": whole**0.5, "worst": {worst: of_weights[worst]}}

    return {str(variant): attempt(lambda: errors(variant)) for variant in VARIANTS}  # noqa: B023


def steps(device: str, tiny: bool, data_dir: Path) -> Result:
    """Seconds and peak memory of a stage-1 step of 20 videos in 2 views, and the memory that arithmetic gives."""
    config, videos = network(tiny), 2 if tiny else 20
    labels = torch.linspace(20, 70, videos).to(device)
    clips = random_clips(config, 2 * videos, device)

    def run(variant: Variant) -> Result:
        torch.manual_seed(0)
        model = variant.apply(EchoMENModel(config).to(device).train())
        contrast = LDWSupConLoss(train_labels=labels.cpu())
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        scaler = torch.amp.GradScaler(device, enabled=variant.autocast == torch.float16)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            with variant(device):
                output = model(pixel_values=clips)
                loss = squared_error(output.regression, labels.repeat_interleave(2))
                loss = loss + 0.5 * contrast(output.projection.unflatten(0, (-1, 2)), labels)
                scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            synchronise(device)
            times.append(time.perf_counter() - begin)
        found: Result = {"seconds": float(np.median(times[2:])), "loss": loss.item()}
        half = variant.autocast is not None
        computed = step_memory(config, len(clips), bf16=half, checkpointing=variant.checkpointing)
        found["computed_gib"] = computed.total / 2**30
        if device == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return found

    checkpointed = [Variant("ieee", checkpointing=True), Variant("tf32", torch.bfloat16, checkpointing=True)]
    return {str(variant): attempt(lambda: run(variant)) for variant in [*VARIANTS, *checkpointed]}  # noqa: B023


def waits(device: str, tiny: bool, data_dir: Path) -> Result:
    """How often the processor waits for the GPU in each of some stage-1 steps, as PyTorch tells it."""
    videos = load_echonet_dynamic(data_dir)
    model = EchoMENModel(EchoMENConfig(**TINY))
    processor = EchoMENVideoProcessor.for_model(model.config)
    counts: list[int] = []

    class Counting(EchoMENTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            counts.append(len(caught))
            return super().training_step(*args, **kwargs)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        args = arguments(folder, device, stage="1", max_steps=8, logging_steps=100)
        clips = TrainingClips(videos["train"], processor, num_views=2, crop_padding=3)
        trainer = Counting(model=model, args=args, train_dataset=clips)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        trainer.train()
    kinds = sorted({str(warning.message)[:200] for warning in caught})
    return {"per_step": np.diff(counts).tolist(), "messages": kinds}


def inference(device: str, tiny: bool, data_dir: Path) -> Result:
    """Engines, shared windows, pipeline and saliency against IEEE arithmetic on the CPU, in EF points; and speed."""
    paths = sorted((data_dir / "Videos").glob("*.avi"))[: 2 if tiny else 8]

    def predict(place: str, **options: Any) -> np.ndarray:
        predictor = Predictor(SMALL_MODEL_FOLDER, device=place, **options)
        return np.concatenate([predictor(path).clip_ejection_fractions for path in paths])

    exact = {protocol: predict("cpu", protocol=protocol) for protocol in ("windows", "every8")}

    def difference(protocol: str = "windows", **options: Any) -> float:
        return float(np.abs(predict(device, protocol=protocol, **options) - exact[protocol]).max())

    def piped() -> float:
        model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
        run = EjectionFractionPipeline(model=model, video_processor=processor, device=torch.device(device))
        found = [clip["ejection_fraction"] for path in paths for clip in run(str(path), batch_size=4)["clips"]]
        return float(np.abs(np.array(found) - exact["windows"]).max())

    def salient() -> float:
        from echomen_hf.app.saliency import attribute_motion

        maps = []
        for place in ("cpu", device):
            model, _ = load_checkpoint(SMALL_MODEL_FOLDER)
            clip = random_clips(model.config, 1, "cpu")[0]
            maps.append(attribute_motion(model.to(place), clip, len(clip)))
        return float(np.abs(maps[1] - maps[0]).max() / np.abs(maps[0]).max())

    found: Result = {"compile": attempt(lambda: difference(engine="compile"))} if not tiny else {}
    for precision in ("fp32", "tf32", "bf16"):
        found[f"torch {precision}"] = attempt(lambda: difference(precision=precision))  # noqa: B023
        found[f"shared windows {precision}"] = attempt(
            lambda: difference("every8", precision=precision, share_windows=True)  # noqa: B023
        )
    found |= {"pipeline": attempt(piped), "saliency (of the largest)": attempt(salient)}
    model = EchoMENModel(network(tiny)).to(device).eval()
    found["seconds a clip"] = {
        f"{precision}, {size} clips": attempt(
            lambda: {
                str(tuple(form)): seconds / size  # noqa: B023
                for form, seconds in measured_forms(model, precision, None, size).items()  # noqa: B023
            }
        )
        for precision in (("fp32",) if device == "cpu" else ("fp32", "tf32", "bf16"))
        for size in ((2,) if tiny else (1, 4, 16, 64))
    }
    return found


def reading(device: str, tiny: bool, data_dir: Path) -> Result:
    """Files per second of `Predictor` with the paper's network, over batch sizes and reading threads."""
    model = EchoMENModel(network(tiny))
    processor = EchoMENVideoProcessor.for_model(model.config)
    paths = sorted((data_dir / "Videos").glob("*.avi")) * (1 if tiny else 4)
    found = {}
    for batch_size in (4,) if tiny else (4, 16, 32):
        for workers in (1,) if tiny else (1, 4, 8):
            predictor = Predictor(model, processor, device=device, batch_size=batch_size, num_workers=workers)
            predictor(paths[0])
            begin = time.perf_counter()
            for _, prediction in predictor.predict_files(paths):
                if isinstance(prediction, Exception):
                    raise prediction
            found[f"{batch_size} clips, {workers} threads"] = len(paths) / (time.perf_counter() - begin)
    return found


def stage_2(device: str, tiny: bool, data_dir: Path) -> Result:
    """Embeddings and least squares on the device against those on the CPU."""
    videos = load_echonet_dynamic(data_dir, split="train")
    embeddings: list[torch.Tensor] = []
    solved: list[torch.Tensor] = []
    for place in ("cpu", device):
        model, processor = load_checkpoint(SMALL_MODEL_FOLDER)
        clips = TrainingClips(videos, processor)
        with tempfile.TemporaryDirectory() as folder:
            args = arguments(folder, place, stage="2", expert_solver="least_squares", embedding_draws=1)
            with float32_precision("ieee"):
                embeddings.append(embed(model, clips, args, "check"))
            labels = torch.tensor(clips.ejection_fractions, dtype=torch.float64)
            # Both from the same embeddings, so that only the solution is compared.
            Stage2(args, model, labels).prepare(model, TrainingEmbeddings(embeddings[0][None], labels.tolist()))
        state = model.experts.state_dict()
        solved.append(torch.cat([value.cpu() for name, value in state.items() if name.endswith("weight")]))
    return {
        "embeddings": float((embeddings[1] - embeddings[0]).norm() / embeddings[0].norm()),
        "experts": float((solved[1] - solved[0]).norm() / solved[0].norm()),
    }


class CutOff(TrainerCallback):
    """Ends the process's training as a loss of power would, but for an exception."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise the exception at a step of the second epoch."""
        if state.global_step == 1 + state.max_steps // 2:
            raise KeyboardInterrupt


def resume(device: str, tiny: bool, data_dir: Path, full_determinism: bool = False) -> Result:
    """Whether two trainings of the demo's network agree to the bit: uninterrupted twice, and killed and resumed."""
    recipe = yaml.safe_load((RECIPES_FOLDER / "demo.yaml").read_text(encoding="utf-8"))
    config = EchoMENConfig(**(TINY if tiny else recipe["model_config"]))
    videos = load_echonet_dynamic(data_dir)

    def train(folder: str, interrupted: bool) -> dict[str, torch.Tensor]:
        args = arguments(
            folder,
            device,
            stage="1",
            max_steps=-1,
            num_train_epochs=2 if tiny else 6,
            save_strategy="epoch",
            eval_strategy="epoch",
            load_best_model_at_end=True,
            learning_rate=3e-3,
            optim="adamw_torch",
            full_determinism=full_determinism,
        )
        torch.manual_seed(0)
        model = EchoMENModel(config)
        processor = EchoMENVideoProcessor.for_model(config)
        callbacks = [CutOff()] if interrupted else []

        def make_trainer(**parts: Any) -> EchoMENTrainer:
            return EchoMENTrainer(**parts, callbacks=callbacks)

        trained = fit(model, processor, videos["train"], videos["validation"], args, make_trainer=make_trainer)
        return {name: value.cpu() for name, value in trained.state_dict().items()}

    with ExitStack() as stack:
        first, second, third = (stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(3))
        whole, again = train(first, False), train(second, False)
        try:
            train(third, True)
        except KeyboardInterrupt:
            resumed = train(third, False)

    def farthest(other: dict[str, torch.Tensor]) -> float:
        return max(float((other[name].float() - value.float()).abs().max()) for name, value in whole.items())

    return {"again": farthest(again), "resumed": farthest(resumed)}


def resume_deterministically(device: str, tiny: bool, data_dir: Path) -> Result:
    """The same with full determinism, where both differences must be 0; and EchoGNN, whose pooling must not raise."""
    found = resume(device, tiny, data_dir, full_determinism=True)
    if found["again"] or found["resumed"]:
        raise ValueError(f"With full determinism, trainings differ: {found}")
    recipe = yaml.safe_load((RECIPES_FOLDER / "compare.yaml").read_text(encoding="utf-8"))
    names = ("echognn",) if tiny else recipe["method_model_config"]
    for name in (*names, *(() if tiny else ("rank_n_contrast", "ddir", "ranksim"))):
        found[name] = attempt(lambda: one_step(name, recipe, device, data_dir))  # noqa: B023
    return found


def one_step(name: str, recipe: Result, device: str, data_dir: Path) -> float:
    """Train a method for one step with the switches of PyTorch as they are; returns its loss."""
    method = get_method(name)
    videos = load_echonet_dynamic(data_dir, split="train")
    model: Any = method.model_class(
        method.make_config(recipe["method_model_config"].get(name, recipe["model_config"]))
    )
    processor = method.processor_class.for_model(model.config)
    with tempfile.TemporaryDirectory() as folder:
        given = arguments(folder, device, metric_for_best_model="loss", full_determinism=True)
        args = method.training_arguments(given).for_stage(1, folder)
        clips = method.training_clips(videos, processor, args.num_views, 4)
        return method.make_trainer()(model=model, args=args, train_dataset=clips).train().training_loss


def nccl(device: str, tiny: bool, data_dir: Path) -> Result:
    """A training in one process with a process group, NCCL's on CUDA, with batch statistics synchronised and not."""
    videos = load_echonet_dynamic(data_dir, split="train")
    found: Result = {}
    for sync_batch_norm in (False, True) if device == "cuda" else (False,):  # which PyTorch has on GPUs only
        torch.manual_seed(0)
        model = EchoMENModel(EchoMENConfig(**TINY))
        clips = TrainingClips(videos, EchoMENVideoProcessor.for_model(model.config), num_views=2, crop_padding=3)
        with tempfile.TemporaryDirectory() as folder:
            args = arguments(folder, device, stage="1", max_steps=2, sync_batch_norm=sync_batch_norm)
            loss = EchoMENTrainer(model=model, args=args, train_dataset=clips).train().training_loss
        found["synchronised" if sync_batch_norm else "own statistics"] = loss
    found["backend"] = torch.distributed.get_backend() if torch.distributed.is_initialized() else None
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return found


SECTIONS: dict[str, Callable[[str, bool, Path], Result]] = {
    "versions": versions,
    "gradients": gradients,
    "steps": steps,
    "waits": waits,
    "inference": inference,
    "reading": reading,
    "stage_2": stage_2,
    "nccl": nccl,
    "resume": resume,
    "resume_deterministically": resume_deterministically,
    "methods": methods,
}
"""What is checked, the most telling first."""
