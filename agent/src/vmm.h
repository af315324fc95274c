/* The machine of a guest: a process as any other, until it ends. */
#ifndef VMM_H
#define VMM_H

void vmm_ended(void);

#endif
