"""The commands of the `unmask` command line, one group a file; :mod:`diffusion_core.commands` puts them together."""
