import math

import numpy as np
import pytest

from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from ulfsim.protocols.targets import TargetSnr, from_snrs, target_snr

SNR = {"CSF": 14.0, "GM": 40.1, "WM": 50.8}


def _scan(*snr):
    return dict(zip(TISSUES, snr, strict=True))


def _logs(target, n=4000):
    return np.log([[drawn[name] for name in target.names] for drawn in (target.draw(0, str(i)) for i in range(n))])


def test_numbers_without_spread_draw_themselves():
    target = target_snr(SNR)
    assert dict(target.draw(3, "any")) == pytest.approx(SNR)
    assert dict(target.median) == pytest.approx(SNR)
    assert target.n_scans == 0


def test_one_scan_draws_itself():
    target = from_snrs([_scan(14.0, 40.0, 50.0)], ["ulf.nii.gz"])
    assert dict(target.draw(1, "a")) == pytest.approx({"CSF": 14.0, "GM": 40.0, "WM": 50.0})
    assert set(target.spread.values()) == {0.0}
    assert (target.n_scans, target.sources) == (1, ("ulf.nii.gz",))


def test_several_scans_have_the_stated_mean_and_covariance():
    """The three delivered sets of published 64 mT SNRs."""
    found = from_snrs([_scan(40.1, 62.3, 75.6), _scan(12.4, 67.2, 86.8), _scan(14.0, 40.1, 50.8)])
    assert found.median["WM"] == pytest.approx((75.6 * 86.8 * 50.8) ** (1 / 3))
    white = np.log([75.6, 86.8, 50.8])
    assert found.spread["WM"] == pytest.approx(white.std(ddof=1))
    grey = np.log([62.3, 67.2, 40.1])
    # w = 3 / (3 + 3 - 1)
    assert found.covariance_log[1][2] == pytest.approx(0.4 * np.cov(grey, white)[0, 1])


def test_shrinkage_fades_with_the_number_of_scans():
    generator = np.random.default_rng(0)
    factor = np.exp(0.2 * generator.normal(size=200))
    scans = [_scan(14 * f, 40 * f, 50 * f) for f in factor]
    few, many = (np.array(from_snrs(scans[:n]).covariance_log) for n in (2, 200))
    assert few[0, 1] / few[0, 0] == pytest.approx(1 / 4)
    assert many[0, 1] / many[0, 0] == pytest.approx(199 / 202)


def test_draws_have_the_mean_and_the_covariance():
    covariance = ((0.09, 0.02, 0.01), (0.02, 0.04, 0.03), (0.01, 0.03, 0.04))
    target = TargetSnr(TISSUES, tuple(math.log(v) for v in SNR.values()), covariance, 5, ("test",))
    logs = _logs(target)
    assert logs.mean(0) == pytest.approx(np.log(list(SNR.values())), abs=0.02)
    assert np.cov(logs, rowvar=False) == pytest.approx(np.array(covariance), abs=0.005)


def test_spreads_of_numbers():
    each = _logs(target_snr(SNR, spread=0.2), 2000)
    assert each.std(0) == pytest.approx([0.2] * 3, rel=0.1)
    assert abs(np.corrcoef(each[:, 1], each[:, 2])[0, 1]) < 0.1
    together = _logs(target_snr(SNR, common_spread=0.2), 200)
    assert together[:, 2] - together[:, 1] == pytest.approx([math.log(50.8 / 40.1)] * 200)
    assert together[:, 1].std() == pytest.approx(0.2, rel=0.2)


def test_draws_depend_on_seed_and_key_alone():
    target = target_snr(SNR, spread=0.1)
    assert target.draw(1, "a") == target.draw(1, "a")
    assert target.draw(1, "a") != target.draw(2, "a")
    assert target.draw(1, "a") != target.draw(1, "b")


def test_bad_targets_are_refused():
    with pytest.raises(BadInputError, match="positive SNR"):
        target_snr({"WM": 0.0})
    with pytest.raises(BadInputError, match="negative"):
        target_snr(SNR, spread=-0.1)
    with pytest.raises(BadInputError, match="at least one"):
        from_snrs([])
    with pytest.raises(BadInputError, match="0 or infinity"):
        from_snrs([_scan(0.0, 40.0, 50.0)])
    with pytest.raises(BadInputError, match="as many sources"):
        from_snrs([_scan(14.0, 40.0, 50.0)], ["a", "b"])
    with pytest.raises(BadInputError, match="same tissues"):
        from_snrs([_scan(14.0, 40.0, 50.0), {"WM": 1.0}])
    with pytest.raises(BadInputError, match="covariance"):
        TargetSnr(("WM",), (1.0,), ((-1.0,),), 1, ())
    with pytest.raises(BadInputError, match="one mean each"):
        TargetSnr(("WM", "GM"), (1.0,), ((1.0,),), 1, ())
