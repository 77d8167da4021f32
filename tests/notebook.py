"""What a terminal and a notebook show of a result."""

import base64
import io
import re

import numpy as np
from pages import Page
from PIL import Image


def assert_shows_itself(result, name, *facts):
    """A line without numbers of voxels, and HTML with a table and pictures that are not empty."""
    text = repr(result)
    assert text.startswith(name)
    assert len(text) < 250
    assert "\n" not in text
    assert "tensor" not in text
    html = result._repr_html_()
    page = Page(html)
    assert page.all("table")
    for fact in facts:
        assert any(fact in cell for cell in page.cells), (fact, page.cells)
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", html)
    assert len(pictures) == len(page.all("img")) >= 2
    for picture in pictures:
        assert len(np.unique(np.array(Image.open(io.BytesIO(base64.b64decode(picture)))))) > 5
