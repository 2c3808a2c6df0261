"""Virtual machines on one host: libvirt behind a seam, the XML it is given, and migration through the mesh."""
