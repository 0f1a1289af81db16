"""Flags and variables become one frozen value; errors name the option."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engines.config import EngineConfig
from service.config import (
    OPTIONS,
    ConfigError,
    ServerConfig,
    TlsFiles,
    build_config,
    read_config,
    tables,
    with_voices_place,
)

DOCS = Path(__file__).parents[2] / "docs" / "options.md"


def test_without_flags_and_variables_every_option_has_its_default():
    assert read_config([], {"PATH": "/bin"}) == ServerConfig()


def test_flags_win_over_variables_and_variables_over_defaults():
    config = read_config(["--model", "random:tiny"], {"MYNAH_MODEL": "nano", "MYNAH_MAX_STREAMS": "3"})
    assert (config.model, config.max_streams) == (("random:tiny",), 3)


def test_every_option_is_a_flag_and_a_variable_of_its_own_type():
    samples = {
        "model": ("nano,de=owner/pack", ("nano", "de=owner/pack")),
        "listen": ("[::]:0", "[::]:0"),
        "http_listen": ("[::]:8080", "[::]:8080"),
        "cors_origin": ("https://a.example, http://localhost:3000", ("https://a.example", "http://localhost:3000")),
        "log_format": ("json", "json"),
        "insecure": ("on", True),
        "watermark": ("on", True),
        "device": ("cuda:1", "cuda:1"),
        "schedule": ("throughput", "throughput"),
        "decode": ("cached", "cached"),
        "t3": ("vllm", "vllm"),
        "t3_dtype": ("float16", "float16"),
        "s3gen": ("tensorrt", "tensorrt"),
        "s3gen_dtype": ("float32", "float32"),
        "s3gen_steps": ("10", "10"),
        "admin_listen": ("0.0.0.0:9090", "0.0.0.0:9090"),
        "otlp_endpoint": ("http://collector:4317", "http://collector:4317"),
        "strict": ("on", True),
        "strict_reference": ("on", True),
        "word_times": ("off", "off"),
        "attention": ("constrained", "constrained"),
        "word_guard": ("on", True),
        "provider_fp16": ("on", True),
        "provider_cache_dir": ("/tmp/e", Path("/tmp/e")),
        "providers": ("cuda,cpu", ("cuda", "cpu")),
        "lora": ("/tmp/a,/tmp/b", (Path("/tmp/a"), Path("/tmp/b"))),
        "cache_dir": ("/tmp/c", Path("/tmp/c")),
        "voices_dir": ("/tmp/v", Path("/tmp/v")),
        "tls_certificate": ("/tmp/a", Path("/tmp/a")),
        "tls_key": ("/tmp/k", Path("/tmp/k")),
        "tls_client_ca": ("/tmp/a", Path("/tmp/a")),
        "api_keys": ("/tmp/n", Path("/tmp/n")),
        "allowed_host": ("a.example,b.example", ("a.example", "b.example")),
        "log_level": ("WARNING", "warning"),
        "idle_timeout_s": ("2.5", 2.5),
        "stall_timeout_s": ("0.5", 0.5),
        "grace_s": ("0", 0.0),
        "max_pending_text_chars": ("5000", 5000),
        "max_positions": ("1600", 1600),
        "max_text_chars_per_segment": ("100", 100),
        "gpu_memory_utilization": ("0.5", 0.5),
        "cuda_graphs": ("off", False),
        "openai_voices": ("off", False),
        "markup": ("strip", "strip"),
        "unspeakable_text": ("refuse", "refuse"),
        "drop_thinking": ("on", True),
        "normalize": ("off", False),
        "emoji": ("name", "name"),
        "paragraph_pause_s": ("0.5", 0.5),
        "dictionary_dir": ("/tmp/d", Path("/tmp/d")),
        "max_unary_answer_bytes": ("5000", 5000),
    }
    names = list(OPTIONS)
    samples |= {name: ("7", 7) for name in names if name not in samples}
    expected = build_config(**{name: value for name, (_, value) in samples.items()})
    flags = [part for name in names for part in ("--" + name.replace("_", "-"), samples[name][0])]
    assert read_config(flags, {}) == expected
    assert read_config([], {f"MYNAH_{name.upper()}": samples[name][0] for name in names}) == expected


def test_the_flag_of_models_may_be_given_several_times():
    config = read_config(["--model", "turbo", "--model", "de=owner/pack@c0ffee", "--model", "./a=b"], {})
    assert [each.model for each in config.engine_configs()] == ["turbo", "owner/pack@c0ffee", "./a=b"]
    assert config.model_names() == ("", "de", "")
    assert config == read_config([], {"MYNAH_MODEL": "turbo, de=owner/pack@c0ffee, ./a=b"})


def test_a_switch_needs_no_value_as_a_flag():
    assert read_config(["--strict", "--model", "nano"], {}) == build_config(strict=True, model=("nano",))
    assert read_config(["--strict", "off"], {"MYNAH_STRICT": "on"}) == ServerConfig()


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        (["--max-streams", "0"], {}, ["--max-streams is '0'", "from 1 to 10000"]),
        (["--max-streams", "all"], {}, ["--max-streams is 'all'", "auto, or a whole number"]),
        (["--max-streams", "many"], {}, ["--max-streams is 'many'"]),
        ([], {"MYNAH_MAX_STREAMS": "1.5"}, ["MYNAH_MAX_STREAMS is '1.5'"]),
        (["--cors-origin", "a.example"], {}, ["--cors-origin is 'a.example'", "https://app.example"]),
        (["--cors-origin", "https://a.example/page"], {}, ["--cors-origin"]),
        ([], {"MYNAH_GRACE_S": "nan"}, ["MYNAH_GRACE_S is 'nan'", "seconds"]),
        ([], {"MYNAH_IDLE_TIMEOUT_S": "-1"}, ["MYNAH_IDLE_TIMEOUT_S"]),
        (["--listen", "localhost"], {}, ["--listen is 'localhost'", "HOST:PORT"]),
        (["--listen", "localhost:70000"], {}, ["--listen"]),
        (["--model", " "], {}, ["--model"]),
        (["--model", "nano", "--model", "nano"], {}, ["--model is 'nano,nano'", "each once"]),
        ([], {"MYNAH_MODEL": "nano,a="}, ["MYNAH_MODEL is 'nano,a='"]),
        (["--log-level", "loud"], {}, ["--log-level is 'loud'", "debug, info, warning or error"]),
        ([], {"MYNAH_MODLE": "nano"}, ["MYNAH_MODLE", "MYNAH_MODEL"]),
        ([], {"MYNAH_model": "nano"}, ["MYNAH_model"]),
        (["--modle", "nano"], {}, ["--modle"]),
        (["--max-stream", "3"], {}, ["--max-stream"]),
        (["surplus"], {}, ["surplus"]),
        (["--t3", "VLLM"], {}, ["--t3 is 'VLLM'", "auto, torch, torch_graphs, onnx or vllm"]),
        (["--providers", "cpu,cpu"], {}, ["--providers", "each once"]),
        (["--gpu-memory-utilization", "0"], {}, ["--gpu-memory-utilization is '0'", "above 0 and at most 1"]),
        (["--gpu-memory-utilization", "1.5"], {}, ["--gpu-memory-utilization"]),
        ([], {"MYNAH_GPU_MEMORY_UTILIZATION": "nan"}, ["MYNAH_GPU_MEMORY_UTILIZATION is 'nan'"]),
        (["--max-positions", "100"], {}, ["--max-positions is '100'", "from 1500"]),
        (["--max-text-chars-per-segment", "19"], {}, ["--max-text-chars-per-segment is '19'", "from 20"]),
        (["--cuda-graphs", "perhaps"], {}, ["--cuda-graphs is 'perhaps'", "on or off"]),
        ([], {"MYNAH_STRICT": "perhaps"}, ["MYNAH_STRICT is 'perhaps'", "on or off"]),
        (["--tls-key", "/tmp/k"], {}, ["tls_certificate and tls_key"]),
        (["--tls-client-ca", "/tmp/a"], {}, ["tls_client_ca needs"]),
        (["--insecure", "perhaps"], {}, ["--insecure is 'perhaps'", "on or off"]),
        (["--listen", "0.0.0.0:50051"], {}, ["listen is 0.0.0.0:50051", "insecure"]),
        (["--listen", "[::]:50051"], {}, ["listen is [::]:50051"]),
        ([], {"MYNAH_LISTEN": "tts.example.org:443"}, ["listen is tts.example.org:443"]),
        (["--listen", "0.0.0.0:1", "--insecure", "off"], {}, ["listen is 0.0.0.0:1"]),
    ],
)
def test_a_bad_option_is_named(flags: list[str], variables: dict[str, str], words: list[str]):
    with pytest.raises(ConfigError) as raised:
        read_config(flags, variables)
    for part in words:
        assert part in str(raised.value)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1"])
def test_an_address_of_this_machine_alone_needs_no_encryption(listen: str):
    assert read_config(["--listen", listen], {}).tls is None


def test_an_address_that_others_reach_is_served_encrypted_or_on_purpose():
    everywhere = ["--listen", "0.0.0.0:1"]
    assert read_config([*everywhere, "--insecure"], {}).insecure
    encrypted = read_config([*everywhere, "--tls-certificate", "/tmp/a", "--tls-key", "/tmp/k"], {})
    assert encrypted.tls == TlsFiles(Path("/tmp/a"), Path("/tmp/k"))


def test_voices_lie_in_a_folder_or_behind_a_url():
    assert read_config(["--voices-dir", "s3://bucket/voices"], {}).voices_dir == "s3://bucket/voices"
    assert read_config(["--voices-dir", "voices"], {}).voices_dir == Path("voices")


def test_the_clients_variables_are_ignored():
    assert read_config([], {"MYNAH_API_KEY": "mynah-x"}) == ServerConfig()


def test_the_engine_gets_its_part():
    config = build_config(model=("nano",), device="cpu", threads=2, max_streams=5, cache_dir=Path("/c"), weights_seed=9)
    expected = EngineConfig(model="nano", device="cpu", threads=2, max_streams=5, cache_dir=Path("/c"), weights_seed=9)
    assert config.engine_configs() == (expected,)


def test_the_engines_memory_and_sequence_lengths_can_be_set():
    flags = ["--gpu-memory-utilization", "0.6", "--cuda-graphs", "off", "--max-positions", "1800"]
    engine = read_config([*flags, "--max-text-chars-per-segment", "120"], {}).engine_configs()[0]
    assert (engine.gpu_memory_utilization, engine.cuda_graphs) == (0.6, False)
    assert (engine.max_positions, engine.max_text_chars_per_segment) == (1800, 120)


def test_an_engine_is_built_for_enough_streams_before_its_capacity_is_measured():
    assert read_config(["--max-streams", "auto"], {}).engine_configs()[0].max_streams >= 16
    assert read_config(["--device", "cuda:0"], {}).engine_configs()[0].max_streams == 64
    assert read_config(["--device", "cpu"], {}).engine_configs()[0].max_streams == 16


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        read_config(["--help"], {})
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    for name in OPTIONS:
        assert "--" + name.replace("_", "-") in shown


def test_every_option_of_an_engine_is_an_option_of_the_server():
    for field in dataclasses.fields(EngineConfig):
        assert field.name in OPTIONS


def test_the_documented_tables_are_the_options():
    assert tables() in DOCS.read_text(), "run `python -m service.config` and put its tables there"


def test_voices_are_kept_in_the_users_data_folder_where_only_this_machine_reaches_the_server(tmp_path: Path):
    def place(*flags: str, **environment: str) -> Path | str | None:
        environment = {"XDG_DATA_HOME": str(tmp_path), **environment}
        return with_voices_place(read_config(flags, environment), environment).voices_dir

    assert place() == tmp_path / "mynah" / "voices"
    assert place("--http-listen", "127.0.0.1:0") == tmp_path / "mynah" / "voices"
    assert place("--listen", "0.0.0.0:1", "--insecure") == "memory"
    assert place("--http-listen", "0.0.0.0:1", "--insecure") == "memory"
    assert place("--voices-dir", "memory") == "memory"
    assert place("--voices-dir", "/tmp/v") == Path("/tmp/v")
    assert place(MYNAH_VOICES_DIR="memory") == "memory"
    assert place(XDG_DATA_HOME="", HOME="") == "memory", "an empty HOME is not the root folder"
    assert list(tmp_path.iterdir()) == [], "reading the configuration writes nothing"
    (tmp_path / "mynah").write_text("a file where the folder would be")
    assert place() == "memory"


def test_a_repeatable_flag_may_be_given_several_times_or_with_commas():
    flags = ["--allowed-host", "a.example", "--allowed-host", "b.example,c.example"]
    assert read_config(flags, {}).allowed_host == ("a.example", "b.example", "c.example")
    assert read_config([], {"MYNAH_ALLOWED_HOST": "a.example,b.example"}).allowed_host == ("a.example", "b.example")
    for wrong in ("", "a b", "http://a.example", "*.example"):
        with pytest.raises(ConfigError):
            read_config(["--allowed-host", wrong], {})
