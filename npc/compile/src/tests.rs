mod agreement;
mod allowed;
mod change;
mod corner;
mod judge;
mod random;
mod shape;
mod way;
