mod agreement;
mod shape;
mod way;
