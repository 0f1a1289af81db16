"""`mynah-serve` on the fake engine, for tests in other environments. Takes the same flags."""

import engines
from engines.fake import FakeEngine, Script


def load(config, observer=None, shared=None):
    return FakeEngine(Script(token_s=0.002), max_streams=config.max_streams)


engines.load = load

if __name__ == "__main__":
    from service.__main__ import main

    main()
