# cmake -DFROM=file -DTO=file.c -DNAME=name -P embed.cmake: the file's bytes as NAME[] and NAME_len.
file(READ ${FROM} hex HEX)
string(LENGTH "${hex}" digits)
math(EXPR len "${digits} / 2")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${TO} "#include <stddef.h>\n#include <stdint.h>\nconst uint8_t ${NAME}[] = {${bytes}};\nconst size_t ${NAME}_len = ${len};\n")
