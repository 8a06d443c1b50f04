mod agreement;
mod change;
mod corner;
mod judge;
mod random;
mod shape;
mod way;
