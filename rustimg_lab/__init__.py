"""A lab that measures what a base image, a build profile and an allocator cost a Rust service."""
