from dataclasses import replace

import pytest

import mrkit
from mrcore.phantom import digital_head, head_grid
from mrkit.measurement.measured import as_text
from mrkit.measurement.plots import edge_plots


@pytest.fixture(scope="module")
def found():
    head = digital_head(head_grid(40), seed=1)
    return mrkit.measure(head.image, tissues=head.tissues)


def test_an_edge_of_no_width_is_a_step(found):
    """Edges between whole voxels of an image without noise may be fitted as 0 mm wide."""
    sharp = replace(found, edges=replace(found.edges, fwhm_mm=(0.0, 0.0, 0.0)))
    assert len(edge_plots(sharp)) == 3
    for plot in edge_plots(sharp):
        fitted = next(line for line in plot.lines if line.name.startswith("fitted"))
        assert set(fitted.y) <= {0.0, 0.5, 1.0}
        assert fitted.y[0] == 0
        assert fitted.y[-1] == 1
        assert "0.00 mm" in plot.title


def test_the_error_of_the_noise_is_said_as_the_intervals_are(found):
    """A standard error of 10 % is a 95 % interval of 20 % to either side."""
    uncertain = replace(found, contrast=replace(found.contrast, noise_error=0.1))
    assert "+- 20 % (" in as_text(uncertain)
