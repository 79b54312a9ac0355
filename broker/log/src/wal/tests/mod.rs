//! The WAL on a simulated disk. A failing test prints its seed; `KEELSON_SEED` is not needed, since every loop names
//! the seed and the operation in its message and can be run for that pair alone.

mod chain;
mod crash;
mod damage;
mod life;
mod reads;
mod rig;
