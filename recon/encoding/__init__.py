"""From temporal components to samples: subspace, coils, Fourier transform."""
