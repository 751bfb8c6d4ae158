"""Losses as pure functions of per-token arrays; one reducer, one fused head."""
