"""Training and prediction as an accelerator would see them, on a device that only pretends to be one."""

import copy
import re

import numpy as np
import pytest
import torch

from echomen_hf import EchoMENTrainer, Predictor
from echomen_hf.app.saliency import attribute_motion
from echomen_hf.labels import label_bins
from echomen_hf.methods import get_method, list_methods
from echomen_hf.model.pipeline_echomen import EjectionFractionPipeline
from echomen_hf.outline import load_outliner
from echomen_hf.training.bf16_probe import wrong_in_bf16
from echomen_hf.training.embeddings import TrainingEmbeddings
from echomen_hf.training.stage_2 import Stage2
from helpers.pretend_device import DEVICE, OnDevice, PretendDevice
from helpers.small_networks import SMALL_NETWORKS, small_model


SHORT = {"max_steps": 6, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}


# Of those that `torch.use_deterministic_algorithms` lists as raising an error on CUDA, in either pass.
WITHOUT_DETERMINISM = re.compile(
    r"((adaptive_)?(max|avg)_pool3d|adaptive_(max|avg)_pool2d|fractional_max_pool\dd|upsample_\w+|reflection_pad\dd|"
    r"replication_pad\dd|grid_sampler_\dd|max_unpool\dd|nll_loss2d|_?ctc_loss|embedding_bag)(_with_indices)?_backward|"
    r"cumsum|logcumsumexp|histc|bincount|kthvalue|median|put_|scatter_reduce|_cdist_backward"
)


@pytest.fixture
def device():
    return PretendDevice()


@pytest.fixture
def args_on_device(make_arguments):
    """Arguments of a training on the device, whose batches overlap with computing as pinned ones do."""

    def make(**changes):
        args = make_arguments(**{**SHORT, "accelerator_config": {"non_blocking": True}, **changes})
        args.__dict__["_setup_devices"] = DEVICE
        return args

    return make


def train(trainer, device):
    """Train on the device; returns how often the processor had waited for it when each step began."""
    waits, step = [], trainer.training_step

    def watched(*args, **kwargs):
        waits.append(device.waits.total())
        return step(*args, **kwargs)

    trainer.training_step = watched
    trainer.accelerator.state.device = DEVICE
    trainer.train()
    return waits


@pytest.mark.parametrize("stage", [1, 2])
def test_processor_waits_for_the_device_only_to_log(stage, args_on_device, make_data, tiny_model, device):
    with device:
        settings = args_on_device(stage=stage, logging_steps=3)
        train_clips, _ = make_data(2 if stage == 1 else 1)
        waits = train(EchoMENTrainer(model=tiny_model, args=settings, train_dataset=train_clips), device)
    # The first step makes optimiser and tables; the third and the sixth end with a log.
    steps = np.diff(waits)[1:]
    assert steps.tolist() == [0, steps[1], 0, 0]
    assert 1 <= steps[1] < 12


def test_losses_on_the_device_are_those_of_the_processor(
    args_on_device, make_arguments, make_data, tiny_model, device
):
    logged = []
    for on_device in (False, True):
        settings = {"stage": 1, "logging_steps": 1, "max_steps": 3}
        model, (clips, _) = copy.deepcopy(tiny_model), make_data(2)
        if on_device:
            with device:
                trainer = EchoMENTrainer(model=model, args=args_on_device(**settings), train_dataset=clips)
                train(trainer, device)
        else:
            trainer = EchoMENTrainer(model=model, args=make_arguments(**{**SHORT, **settings}), train_dataset=clips)
            trainer.train()
        logged.append([entry for entry in trainer.state.log_history if "loss_contrastive" in entry])
    assert len(logged[0]) == 3
    for expected, found in zip(*logged):
        for name in ("loss", "loss_regression", "loss_contrastive"):
            assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_loss_that_is_not_finite_is_found_when_it_is_logged(args_on_device, make_data, tiny_model, device):
    tiny_model.regression_head.bias.data.fill_(torch.nan)
    with device:
        trainer = EchoMENTrainer(
            model=tiny_model, args=args_on_device(stage=1, logging_steps=4), train_dataset=make_data(2)[0]
        )
        with pytest.raises(FloatingPointError, match="not finite at step 0 .*loss_regression nan"):
            train(trainer, device)
    assert trainer.state.global_step == 4


@pytest.mark.parametrize("name", [name for name in list_methods() if get_method(name).encoder is None])
def test_methods_train_where_there_is_no_double_precision(
    name, args_on_device, make_data, tiny_config, videos, device
):
    method = get_method(name)
    given = args_on_device(max_steps=2, metric_for_best_model="loss")
    settings = method.training_arguments(given).for_stage(1, "run")
    if name in SMALL_NETWORKS:
        model = small_model(name)
        clips = method.training_clips(videos["train"], method.processor_class.for_model(model.config), 1, 3)
    else:
        model, clips = method.model_class(tiny_config), make_data(settings.num_views)[0]
    with device:
        trainer = method.make_trainer()(model=model, args=settings, train_dataset=clips)
        for stage in trainer.stages.values():
            if hasattr(stage, "method_loss"):
                stage.method_loss.to(DEVICE)
        train(trainer, device)
    assert trainer.state.global_step == 2
    assert [operation for operation in device.operations if WITHOUT_DETERMINISM.fullmatch(operation)] == []


def test_device_refuses_double_precision_and_tensors_of_the_processor(device):
    with device:
        here, there = torch.ones(2), torch.ones(2).to(DEVICE)
        assert isinstance(there * 2, OnDevice) and (there * 2).cpu().tolist() == [2, 2]
        with pytest.raises(RuntimeError, match="CPU and of the device"):
            here + there
        with pytest.raises(TypeError, match="double precision"):
            there.double()
        waits = device.waits.total()
        assert (there > 0).all() and device.waits.total() == waits + 1


class TestPrediction:
    @pytest.fixture
    def avi(self, echonet_dir):
        return str(sorted((echonet_dir / "Videos").glob("*.avi"))[0])

    @pytest.mark.parametrize("batch_size", [1, 3])
    def test_pipeline(self, tiny_model, tiny_processor, avi, device, batch_size):
        parts = {"video_processor": tiny_processor, "device": "cpu", "check_view": False}
        expected = EjectionFractionPipeline(model=copy.deepcopy(tiny_model), **parts)(avi)
        with device:
            run = EjectionFractionPipeline(model=tiny_model.to(DEVICE), **{**parts, "device": DEVICE})
            found = run([avi, avi], batch_size=batch_size)
        for result in found:
            assert result["ejection_fraction"] == pytest.approx(expected["ejection_fraction"], rel=1e-5)
            assert [clip["start"] for clip in result["clips"]] == [clip["start"] for clip in expected["clips"]]

    def test_predictor(self, tiny_model, tiny_processor, avi, device, monkeypatch):
        outliner = load_outliner()  # here, since nothing can be loaded on the device
        monkeypatch.setattr("echomen_hf.inference.predictor.load_outliner", lambda: outliner)
        expected = Predictor(copy.deepcopy(tiny_model), tiny_processor, device="cpu")(avi)
        with device:
            found = Predictor(tiny_model, tiny_processor, device=DEVICE)(avi)
        np.testing.assert_allclose(found.clip_ejection_fractions, expected.clip_ejection_fractions, rtol=1e-5)
        np.testing.assert_allclose(found.expert_weights, expected.expert_weights, rtol=1e-4)
        assert found.reasons == expected.reasons

    def test_pipeline_leaves_the_model_of_an_engine_where_it_is(self, tiny_model, tiny_processor, avi, device):
        with device:
            predictor = Predictor(tiny_model, tiny_processor, device=DEVICE, check_view=False)
            parts = {"model": predictor.model, "video_processor": tiny_processor, "engine": predictor.engine}
            run = EjectionFractionPipeline(**parts, check_view=False)
            assert run.device == run.model.device == DEVICE
            assert run(avi)["ejection_fraction"] == pytest.approx(predictor(avi).ejection_fraction)

    def test_files_wait_once_for_a_batch(self, tiny_model, tiny_processor, echonet_dir, device):
        paths = sorted((echonet_dir / "Videos").glob("*.avi"))[:6]
        reader = Predictor(copy.deepcopy(tiny_model), tiny_processor, device="cpu", batch_size=3)
        expected = [prediction for _, prediction in reader.predict_files(paths)]
        with device:
            predictor = Predictor(tiny_model, tiny_processor, device=DEVICE, batch_size=3, check_view=False)
            before = device.waits["copy from the device"]
            found = [prediction for _, prediction in predictor.predict_files(paths)]
        assert [one.ejection_fraction for one in found] == pytest.approx([one.ejection_fraction for one in expected])
        assert [one.file_name for one in found] == [one.file_name for one in expected]
        batches = -(-sum(one.num_clips for one in found) // 3)
        assert device.waits["copy from the device"] - before == batches

    def test_defaults_are_those_of_the_device(self, tiny_model, tiny_processor, monkeypatch):
        monkeypatch.setattr("echomen_hf.inference.predictor.available_cores", lambda: 5)
        on_cpu = Predictor(copy.deepcopy(tiny_model), tiny_processor, device="cpu")
        with PretendDevice():
            parts = {"model": tiny_model, "processor": tiny_processor, "device": DEVICE, "check_view": False}
            there = Predictor(**parts)
            assert Predictor(**parts, batch_size=2, num_workers=3).batch_size == 2
        assert (on_cpu.batch_size, on_cpu.num_workers, there.batch_size, there.num_workers) == (4, 1, 16, 5)

    def test_saliency(self, tiny_model, device):
        clip = torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
        expected = attribute_motion(tiny_model, clip, 6)
        with device:
            found = attribute_motion(tiny_model.to(DEVICE), clip, 6)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:for (weight|bias). copying from a non-meta parameter")
def test_guard_and_least_squares(tiny_model, make_arguments, device):
    labels = torch.tensor([40.0, 60.0] * 6, dtype=torch.float64)
    embeddings = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0))
    dataset = TrainingEmbeddings(embeddings, labels.tolist())
    stage = Stage2(make_arguments(stage=2, expert_solver="least_squares", embedding_draws=2), tiny_model, labels)
    solved = []
    for place in ("cpu", DEVICE):
        model = copy.deepcopy(tiny_model)
        with device:
            model = model.to(place)
            assert wrong_in_bf16(model) == {}
            stage.prepare(model, dataset)
            solved.append(torch.cat([expert.weight.cpu() for expert in model.experts]))
    torch.testing.assert_close(*solved)


@pytest.mark.parametrize("width", [0.1, 0.3, 1.0, 2.5, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bins_are_those_of_double_precision(width, dtype, device):
    edges = torch.arange(-2, 103, dtype=torch.float64) * width
    labels = torch.cat([edges, torch.rand(5000, dtype=torch.float64) * 110 - 5]).to(torch.float32)
    for _ in range(2):
        labels = torch.cat([labels, labels.nextafter(torch.tensor(1e9)), labels.nextafter(torch.tensor(-1e9))])
    labels = labels.to(dtype)
    expected = label_bins(labels.double().numpy(), width)
    np.testing.assert_array_equal(label_bins(labels, width).numpy(), expected)
    with device:
        found = label_bins(labels.to(DEVICE), width)
        assert found.tolist() == expected.tolist()
