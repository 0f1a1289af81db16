"""Language, guidance and exaggeration through the client."""

from __future__ import annotations

import mynah
from engines.fake import MULTILINGUAL, Script
from tests.service.serving import serving


async def test_streams_carry_them_and_the_server_says_what_holds():
    async with serving(Script(abilities=MULTILINGUAL)) as at:
        sampling = mynah.Sampling(min_p=0.1)
        options = {"language": "sv", "cfg_weight": 0.3, "exaggeration": 0.7}
        async with at.client.stream(sampling=sampling, **options) as stream:  # type: ignore[arg-type]
            settings = stream.opened.settings
            assert (settings.language, settings.cfg_weight, settings.exaggeration) == ("sv", 0.3, 0.7)
            assert settings.sampling.min_p == 0.1
        assert [chunk async for chunk in at.client.synthesize("Hej.", **options)]  # type: ignore[arg-type]
        assert at.engine.spoken_languages == ["sv"]


async def test_a_model_without_them_says_none():
    async with serving() as at:
        async with at.client.stream() as stream:
            settings = stream.opened.settings
        assert (settings.language, settings.cfg_weight, settings.exaggeration) == ("en", None, None)
        assert settings.sampling.min_p is None
        info = await at.client.info()
        assert info.languages == ("en",)
        assert (info.cfg_weight_default, info.exaggeration_default, info.min_p_default) == (None, None, None)
        assert (info.sampling_defaults.temperature, info.sampling_defaults.top_k) == (0.8, 1000)


async def test_the_servers_description_has_languages_and_defaults():
    async with serving(Script(abilities=MULTILINGUAL)) as at:
        info = await at.client.info()
        assert info.languages == MULTILINGUAL.languages
        assert (info.cfg_weight_default, info.exaggeration_default, info.min_p_default) == (0.5, 0.5, 0.05)
        assert info.sampling_defaults == mynah.Sampling(0.8, 0, 1.0, 1.2, None, 1000, 0.05)
