"""Losses as pure functions of per-token arrays, with one reducer and one fused output head."""
