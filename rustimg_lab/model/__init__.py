"""What exists: bases, profiles, allocators, cells, apps, metrics and studies. Pure: no engine, no pandas."""
