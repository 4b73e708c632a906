"""zstd, age and signatures: segments in, objects out, and back. Only here are pyrage, zstd and SSH signatures used."""
