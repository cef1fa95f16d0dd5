"""`nerve infer` over files larger than memory: read ahead, tagged many at a time, in order, resumed."""
