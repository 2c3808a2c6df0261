"""Data storages, disks and images: pure plans and the drivers that carry them out."""
