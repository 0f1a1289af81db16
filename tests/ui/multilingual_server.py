"""`mynah-serve` with fake engines. Takes the same flags: the model "plain" has what Turbo has, all others what
Multilingual has; "lacking" lacks a package of Hebrew."""

from dataclasses import replace

import engines
from engines.fake import MULTILINGUAL, Abilities, FakeEngine, Script


def load(config, observer=None, shared=None):
    abilities = Abilities() if config.model == "plain" else MULTILINGUAL
    if config.model == "lacking":
        abilities = replace(abilities, missing_languages=(("he", "dicta-onnx"),))
    script = Script(token_s=0.002, abilities=abilities, continuity=False)
    return FakeEngine(script, max_streams=config.max_streams, model=config.model)


engines.load = load

if __name__ == "__main__":
    from service.__main__ import main

    main()
