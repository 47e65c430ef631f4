"""``pageowner serve``: metrics, a page and an API of one source, by two processes.

The server answers and holds no memory of others: `app` (routes), `guard` (who may ask), `protocol`
(how long and how much), `metrics` (the figures for Prometheus), `calling` (its worker). The worker
(`worker`) reads the source: it makes the `figures`, again and again while somebody asks for them,
and answers what takes a snapshot (`answers`). It ends when nobody asks.
"""
