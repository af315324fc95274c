// What plans cost; null where nobody has said.
export async function pricesOf() {
  return null;
}
