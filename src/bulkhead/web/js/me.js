// Who is signed in, and what that one may do: what they may not is not offered. The daemon decides anyway.

let who = { name: "", words: "", tenant: "", role: "admin", abilities: new Set() };

export const setMe = (found) => { who = found; };
export const me = () => who;
export const may = (ability) => who.abilities.has(ability);
