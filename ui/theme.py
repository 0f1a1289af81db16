"""The Gradio theme of the page. page.css has the same colours for the page's own components.

The colours are a mynah's: black plumage with a violet sheen, an amber beak. All fonts are the system's, so nothing is
downloaded.
"""

from __future__ import annotations

import gradio as gr
from gradio.themes.utils import colors

_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Cantarell", "Noto Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def make_theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue=colors.amber, secondary_hue=colors.violet, neutral_hue=colors.stone, font=_SANS, font_mono=_MONO
    )
    return theme.set(
        body_background_fill="var(--paper)",
        body_background_fill_dark="var(--paper)",
        body_text_color="var(--ink)",
        body_text_color_dark="var(--ink)",
        body_text_color_subdued="var(--ink-soft)",
        body_text_color_subdued_dark="var(--ink-soft)",
        background_fill_primary="var(--card)",
        background_fill_primary_dark="var(--card)",
        background_fill_secondary="var(--paper)",
        background_fill_secondary_dark="var(--paper)",
        border_color_primary="var(--line)",
        border_color_primary_dark="var(--line)",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="var(--ink-soft)",
        block_label_text_color_dark="var(--ink-soft)",
        block_title_text_color="var(--ink)",
        block_title_text_color_dark="var(--ink)",
        block_title_text_size="0.875rem",
        block_title_text_weight="600",
        block_info_text_color="var(--ink-soft)",
        block_info_text_color_dark="var(--ink-soft)",
        input_background_fill="var(--field)",
        input_background_fill_dark="var(--field)",
        input_border_color="var(--edge)",
        input_border_color_dark="var(--edge)",
        input_border_width="1px",
        input_border_color_focus="var(--focus)",
        input_border_color_focus_dark="var(--focus)",
        input_placeholder_color="var(--ink-soft)",
        input_placeholder_color_dark="var(--ink-soft)",
        input_radius="10px",
        button_large_radius="10px",
        button_small_radius="8px",
        button_medium_radius="10px",
        button_primary_background_fill="var(--beak)",
        button_primary_background_fill_dark="var(--beak)",
        button_primary_background_fill_hover="var(--beak-strong)",
        button_primary_background_fill_hover_dark="var(--beak-strong)",
        button_primary_text_color="#1b1600",
        button_primary_text_color_dark="#1b1600",
        button_primary_border_color="transparent",
        button_primary_border_color_dark="transparent",
        button_secondary_background_fill="var(--field)",
        button_secondary_background_fill_dark="var(--field)",
        button_secondary_background_fill_hover="var(--hover)",
        button_secondary_background_fill_hover_dark="var(--hover)",
        button_secondary_border_color="var(--edge)",
        button_secondary_border_color_dark="var(--edge)",
        button_secondary_text_color="var(--ink)",
        button_secondary_text_color_dark="var(--ink)",
        slider_color="var(--sheen)",
        slider_color_dark="var(--sheen)",
        checkbox_background_color_selected="var(--sheen)",
        checkbox_background_color_selected_dark="var(--sheen)",
        checkbox_border_color="var(--edge)",
        checkbox_border_color_dark="var(--edge)",
        checkbox_label_background_fill="var(--field)",
        checkbox_label_background_fill_dark="var(--field)",
        checkbox_label_background_fill_selected="var(--hover)",
        checkbox_label_background_fill_selected_dark="var(--hover)",
        checkbox_label_text_color="var(--ink)",
        checkbox_label_text_color_dark="var(--ink)",
        checkbox_label_border_width="1px",
        checkbox_label_border_color="var(--edge)",
        checkbox_label_border_color_dark="var(--edge)",
        panel_background_fill="transparent",
        panel_background_fill_dark="transparent",
        panel_border_width="0px",
    )
