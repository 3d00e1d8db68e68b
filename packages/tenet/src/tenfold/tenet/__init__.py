"""TENET: motion forecasting on Argoverse 2 (first place of the 2022 challenge)."""
