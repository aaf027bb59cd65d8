//! Trees and overlays of the same layers, compared.

mod differences;
mod layers;
mod site;
