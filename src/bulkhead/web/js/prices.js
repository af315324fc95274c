// What plans cost; null where nobody has said.
export const pricesOf = async () => null;
