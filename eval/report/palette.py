"""Colours of the figures, for the page (light and dark) and for paper. Each has 3 : 1 on its background."""

from __future__ import annotations

# Kinds that have no order; a mark's shape changes with the colour, so that neither has to be told apart alone.
CATEGORY = ("#1f5fbf", "#c8541b", "#17805a", "#8a3fa0", "#a07800", "#0f7f96", "#b82f6b", "#555a61")
CATEGORY_DARK = ("#7db0ff", "#ff9a66", "#5fcf9a", "#d29bea", "#e3c04d", "#5cc8de", "#ff8fbd", "#b5bac2")
# An ordered quantity: hue and lightness change together, also for those who do not see hues.
RAMP = ("#3f9bb8", "#2f83c0", "#2a6cc0", "#3456b0", "#40409c", "#452e84", "#421f69", "#38134c")
RAMP_DARK = ("#6472b8", "#5a8acb", "#4fa2d4", "#4bb8d2", "#5dccc5", "#87deb5", "#b9ecaa", "#eef5b4")


def ramp_step(rank: int, number: int) -> int:
    """Place in the ramp of the ``rank``-th of ``number`` ordered values, spread over all of it."""
    return round(rank * (len(RAMP) - 1) / (number - 1)) if number > 1 else 0


def style_variables(category: tuple[str, ...], ramp: tuple[str, ...]) -> str:
    """The colours as CSS custom properties: ``--c0: #...; --r0: #...;``."""
    named = [(f"--c{i}", colour) for i, colour in enumerate(category)]
    named += [(f"--r{i}", colour) for i, colour in enumerate(ramp)]
    return " ".join(f"{name}: {colour};" for name, colour in named)
