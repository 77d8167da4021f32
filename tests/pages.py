"""Reading a report's page in a test, and a small head to put on one."""

from html.parser import HTMLParser

import numpy as np
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume

VOID = {"meta", "link", "img", "br", "hr", "input", "line", "path", "circle"}


class Page(HTMLParser):
    """Collects elements, checks that they are nested as they should be, and the text of table cells."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.cells = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def grid_of(spacing_mm=2.0, n=32, thick=1):
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm * thick, 1.0])
    shape = (n, n, n // thick)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


GRID = grid_of()


def head():
    at = torch.arange(32) - 15.5
    r = (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2).sqrt()
    prob = torch.stack([(r > 10) & (r <= 13), (r > 6) & (r <= 10), r <= 6]).float()
    tissues = TissueMap(prob, TISSUES, GRID)
    image = 0.3 * prob[0] + 0.7 * prob[1] + 1.0 * prob[2]
    return Volume(image, GRID), tissues, prob.sum(0) > 0


def noisy(volume, sd, seed):
    draw = torch.randn(volume.data.shape, generator=torch.Generator().manual_seed(seed))
    return Volume(volume.data + sd * draw, volume.grid)
