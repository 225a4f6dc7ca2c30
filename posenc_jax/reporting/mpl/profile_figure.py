"""The figure of an encoding's profile: what position adds to a score, against distance."""

import itertools

from posenc_jax.reporting.colors import COLORS
from posenc_jax.reporting.mpl import panels
from posenc_jax.reporting.mpl.axes import as_text, write_notes

DASHES = ('-', '--', ':', '-.')


def draw(spec: str, length: int, samples: int, seed: int, **sizes: int):
  """A matplotlib `Figure` of the profile of an encoding 'NAME/hyper=value' as it starts.

  `sizes` are heads, head_dim and train_length. Raises UserError.
  """
  from posenc_jax.inspection import profiles  # it needs jax, and rows do not

  return draw_encoding(spec, profiles.from_spec(spec, seed=seed, **sizes), length, samples, seed)


def draw_encoding(title: str, enc, length: int, samples: int, seed: int, **state: str):
  """A matplotlib `Figure` of the profile of an encoding, one line a head. Raises UserError.

  `state`: as for `profiles.profile`.
  """
  from posenc_jax.inspection import profiles

  profile = profiles.profile(enc, length, samples, seed, **state)
  with as_text():
    figure, axes_of = panels.panels(title, [panel.title for panel in profile.panels])
    for axes, panel in zip(axes_of, profile.panels, strict=True):
      _draw_panel(axes, panel, enc.dims.heads)
      y_title = panel.y_title if axes is axes_of[0] else ''
      panels.distance_axis(axes, length, y_title, profiles.LOWEST)
    handles_and_labels = axes_of[0].get_legend_handles_labels()
    figure.legend(*handles_and_labels, loc='outside right upper', frameon=False, fontsize=9)
    write_notes(figure, [' '.join(profile.notes)], int(15 * figure.get_figwidth()))
  return figure


def _draw_panel(axes, panel, heads: int) -> None:
  looks = itertools.cycle(itertools.product(DASHES, COLORS))
  for head, (label, (dashes, color)) in enumerate(zip(panel.labels, looks, strict=False)):
    mean_P = panel.mean_PH[:, head]
    axes.plot(panel.distances_P, mean_P, linewidth=1.4, label=label, color=color, linestyle=dashes)
    if panel.spread_PH is not None:
      spread_P = panel.spread_PH[:, head]
      axes.fill_between(
        panel.distances_P,
        mean_P - spread_P,
        mean_P + spread_P,
        color=color,
        alpha=0.5 / heads,
        linewidth=0,
      )
