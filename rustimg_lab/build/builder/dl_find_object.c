/* _dl_find_object of glibc 2.35, which the unwinder of GCC 12 and newer calls and musl lacks.
 * The structure is glibc's <dlfcn.h>, written out; musl has what it takes in dl_iterate_phdr. */
#define _GNU_SOURCE
#include <link.h>
#include <stdint.h>

struct dl_find_object {
    unsigned long long flags;
    void *map_start, *map_end;
    struct link_map *link_map;
    void *eh_frame;
    unsigned long long reserved[7];
};

struct search {
    uintptr_t pc;
    struct dl_find_object *result;
};

/* One loaded object: 1 ends the iteration, when `pc` lies in it and it can be unwound. */
static int visit(struct dl_phdr_info *object, size_t size, void *data)
{
    struct search *search = data;
    uintptr_t start = 0, end = 0, eh_frame = 0;

    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        uintptr_t at = object->dlpi_addr + header->p_vaddr;

        if (header->p_type == PT_LOAD && search->pc - at < header->p_memsz) {
            start = at;
            end = at + header->p_memsz;
        } else if (header->p_type == PT_GNU_EH_FRAME) {
            eh_frame = at;
        }
    }
    if (!end || !eh_frame)
        return 0;
    *search->result = (struct dl_find_object){
        .map_start = (void *)start, .map_end = (void *)end, .eh_frame = (void *)eh_frame,
    };
    return 1;
}

int _dl_find_object(void *pc, struct dl_find_object *result)
{
    struct search search = { (uintptr_t)pc, result };
    return dl_iterate_phdr(visit, &search) == 1 ? 0 : -1;
}
