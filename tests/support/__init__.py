"""What tests share: engines, registries, proxies, and helpers of the lab's own tests."""
