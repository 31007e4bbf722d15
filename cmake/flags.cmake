# Flags that hold for every target. SANITIZE is "", "address" (ASan + UBSan) or "thread".
set(SANITIZE "" CACHE STRING "empty, address (with undefined) or thread")
option(MUSTER_FAULTS "compile the named fault points (MUSTER_FAULT=phase:step:rank)" OFF)

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# Exactness: no fused multiply-add unless it is written. The fingerprint says these, and what the builder added.
set(MUSTER_EXACT_FLAGS -ffp-contract=off -fno-fast-math)

add_compile_definitions(_GNU_SOURCE)
add_compile_options(
    -Wall -Wextra -Werror -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes
    -Wold-style-definition -Wvla -Wundef -Wpointer-arith -Wcast-qual -Wwrite-strings -Wformat=2
    -Wswitch-enum -Wimplicit-fallthrough $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>
    ${MUSTER_EXACT_FLAGS}
    -fno-common -fvisibility=hidden -g)
set(CMAKE_C_FLAGS_RELEASE "-O2")
set(CMAKE_C_FLAGS_DEBUG "-O2")

if(SANITIZE STREQUAL "address")
    add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all
                        -fno-omit-frame-pointer)
    add_link_options(-fsanitize=address,undefined)
elseif(SANITIZE STREQUAL "thread")
    add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
    add_link_options(-fsanitize=thread)
elseif(SANITIZE STREQUAL "")
    add_compile_options(-fstack-protector-strong -fstack-clash-protection -fcf-protection
                        -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
    add_link_options(-Wl,-z,relro,-z,now)
else()
    message(FATAL_ERROR "SANITIZE=${SANITIZE}: use address, thread or nothing")
endif()
if(MUSTER_FAULTS)
    add_compile_definitions(MUSTER_FAULTS=1)
endif()
