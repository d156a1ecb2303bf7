import pytest

from echomen_hf.comparison import read_settings, select_methods
from echomen_hf.methods import get_method


def read(recipe, *flags):
    return read_settings(recipe, ["--data_dir", "data", *flags])


def test_flags_override_the_recipe(write_recipe):
    settings = read(write_recipe(), "--num_train_epochs", "7")
    assert settings.training.num_train_epochs == 7
    assert settings.training.learning_rate == 1e-2
    assert settings.data.crop_padding == 3


def test_data_set_is_needed(write_recipe):
    with pytest.raises(ValueError, match="give `--data_dir`"):
        read_settings(write_recipe(), [])


def test_field_that_nothing_reads(write_recipe):
    with pytest.raises(ValueError, match="fields that nothing reads: num_epochs"):
        read(write_recipe(num_epochs=3))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("seed", "--seeds"),
        ("output_dir", "--output"),
        ("stage", "own stages"),
        ("encoder", "a method `echomen_...`"),
        ("embeddings", "`echomen train` trains heads"),
        ("interval_coverage", "no intervals"),
    ],
)
def test_field_that_the_comparison_sets_itself(write_recipe, name, hint):
    with pytest.raises(ValueError, match=f"does not read `{name}`.*{hint}"):
        read(write_recipe(**{name: 1}))


def test_flag_that_the_comparison_sets_itself(write_recipe):
    with pytest.raises(ValueError, match="does not read `model`"):
        read(write_recipe(), "--model", "runs/demo")
    # The parser takes abbreviations.
    with pytest.raises(ValueError, match="does not read `seed`"):
        read(write_recipe(), "--see=3")


@pytest.mark.parametrize(
    ("flags", "choices", "message"),
    [
        (["--train_encoder", "last_9"], {}, "`train_encoder` is last_9, but the encoder has 2 blocks only"),
        ([], {"bootstrap_samples": -5}, "`--bootstrap_samples` must not be negative, got -5"),
    ],
)
def test_what_a_cell_would_fail_at_is_refused_before_any_is_trained(write_recipe, flags, choices, message):
    settings = read_settings(write_recipe(), ["--data_dir", "data", *flags], **choices)
    with pytest.raises(ValueError, match=message):
        settings.check(select_methods(["echomen"]))


def test_unknown_flag(write_recipe):
    with pytest.raises(ValueError, match="Unknown argument --learning_rates. Did you mean --learning_rate"):
        read(write_recipe(), "--learning_rates", "1")
    with pytest.raises(ValueError, match="Give the recipe as `--recipe`"):
        read_settings(None, ["recipe.yaml"])


def test_options_of_single_methods(write_recipe):
    settings = read(write_recipe(method_options={"focal_r": {"beta": 0.4}}))
    settings.check(select_methods(["all"]))
    assert settings.options(get_method("focal_r")) == {"beta": 0.4}
    assert settings.options(get_method("echonet")) == {}


def test_unknown_option_lists_what_exists(write_recipe):
    settings = read(write_recipe(method_options={"focal_r": {"bet": 0.4}}))
    with pytest.raises(ValueError, match="'focal_r' has no option bet; its options are .*beta"):
        settings.check([])


def test_options_of_an_unknown_method(write_recipe):
    with pytest.raises(ValueError, match="no method 'focal'"):
        read(write_recipe(method_options={"focal": {"beta": 0.4}}))


def test_encoder_of_its_own_is_for_other_architectures(write_recipe):
    settings = read(write_recipe(method_model_config={"echonet": {"hidden_sizes": [8, 16]}}))
    with pytest.raises(ValueError, match="echonet must have the encoder of all others"):
        settings.check([])


def test_unknown_configuration_field(write_recipe, tiny_recipe):
    settings = read(write_recipe(model_config={**tiny_recipe["model_config"], "width": 3}))
    with pytest.raises(TypeError, match="width"):
        settings.check(select_methods(["echonet"]))


def test_network_of_another_architecture_has_its_own_fields(write_recipe):
    settings = read(write_recipe(method_model_config={"echognn": {"hidden_sizes": [4, 8], "image_size": 32}}))
    (config,) = settings.check(select_methods(["echognn"]))
    assert (config.model_type, config.hidden_sizes, config.image_size) == ("echognn", [4, 8], 32)


def test_an_encoder_of_its_own_has_fields_of_its_own(make_settings):
    own = {"encoder_config": {"image_size": 32, "num_frames": 4, "patch_size": 16}, "sampling_period": 8}
    settings = make_settings(method_model_config={"echomen_videomae": own})
    variants = select_methods(["echomen", "echomen_videomae"])
    video_mae, shared = settings.check(variants)
    assert shared.encoder_config is None and shared.image_size == settings.model_config["image_size"]
    assert video_mae.encoder_config.model_type == "videomae"
    assert (video_mae.num_frames, video_mae.image_size, video_mae.sampling_period) == (4, 32, 8)
