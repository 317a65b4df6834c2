# How a folder becomes a library, a main a program: the warnings, the hardening, the sanitizers.

add_library(att_flags INTERFACE)
target_compile_definitions(att_flags INTERFACE _GNU_SOURCE ATT_VERSION="${PROJECT_VERSION}")
target_include_directories(att_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(att_flags INTERFACE
    -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wvla -Wmissing-prototypes
    -Wstrict-prototypes -Wformat=2 -Wundef -fno-common -fstack-protector-strong -fPIE)
target_link_options(att_flags INTERFACE -Wl,-z,relro,-z,now)
if(ATT_WERROR)
    target_compile_options(att_flags INTERFACE -Werror)
endif()
if(ATT_SANITIZE)
    # The named relaxed profile of sanitizer builds: see attestd/proc/sandbox.h.
    target_compile_definitions(att_flags INTERFACE ATT_SANITIZED=1)
    target_compile_options(att_flags INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(att_flags INTERFACE -fsanitize=address,undefined)
else()
    target_compile_definitions(att_flags INTERFACE ATT_SANITIZED=0)
    if(CMAKE_BUILD_TYPE MATCHES "Rel")
        target_compile_options(att_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
    endif()
endif()
if(ATT_COVERAGE)
    target_compile_options(att_flags INTERFACE --coverage)
    target_link_options(att_flags INTERFACE --coverage)
endif()
if(ATT_FUZZ)
    target_compile_options(att_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# att_library(name folder libs...): every .c of the folder (not of its subfolders).
function(att_library name folder)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.c)
    if(sources)
        add_library(${name} STATIC ${sources})
        target_link_libraries(${name} PUBLIC att_flags ${ARGN})
    else()
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE att_flags ${ARGN})
    endif()
endfunction()

# att_program(name main.c library installdir)
function(att_program name main lib dir)
    if(EXISTS ${CMAKE_SOURCE_DIR}/${main})
        add_executable(${name} ${main})
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
        target_link_libraries(${name} PRIVATE ${lib} att_flags -pie)
        install(TARGETS ${name} RUNTIME DESTINATION ${dir})
    endif()
endfunction()

# att_protobuf(name folder): the C code of every .proto of the folder, by protobuf-c. Generated code is not ours to warn
# about, and is included as a system's header. Beside it NAME_descriptors[], NAME_descriptors_len: what protoc-c read, as
# one google.protobuf.FileDescriptorSet with all imports.
function(att_protobuf name folder)
    file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.proto)
    set(out ${CMAKE_BINARY_DIR}/proto)
    file(MAKE_DIRECTORY ${out})
    set(sources)
    foreach(proto ${protos})
        get_filename_component(stem ${proto} NAME_WE)
        add_custom_command(OUTPUT ${out}/${stem}.pb-c.c ${out}/${stem}.pb-c.h
            COMMAND ${ATT_PROTOC_C} --c_out=${out} --proto_path=${CMAKE_SOURCE_DIR}/${folder} ${stem}.proto
            DEPENDS ${proto} VERBATIM)
        list(APPEND sources ${out}/${stem}.pb-c.c)
    endforeach()
    add_custom_command(OUTPUT ${out}/${name}_descriptors.c
        COMMAND ${ATT_PROTOC_C} --descriptor_set_out=${out}/${name}_descriptors.pb --include_imports
                --proto_path=${CMAKE_SOURCE_DIR}/${folder} ${protos}
        COMMAND ${CMAKE_COMMAND} -DFROM=${out}/${name}_descriptors.pb -DTO=${out}/${name}_descriptors.c
                -DNAME=${name}_descriptors -P ${CMAKE_SOURCE_DIR}/scripts/cmake/embed.cmake
        DEPENDS ${protos} ${CMAKE_SOURCE_DIR}/scripts/cmake/embed.cmake VERBATIM)
    add_library(${name} STATIC ${sources} ${out}/${name}_descriptors.c)
    target_include_directories(${name} SYSTEM PUBLIC ${out})
    target_compile_options(${name} PRIVATE -w -fPIE)
    if(ATT_SANITIZE)
        target_compile_options(${name} PRIVATE -fsanitize=address,undefined)
    endif()
    target_link_libraries(${name} PUBLIC PkgConfig::PROTOBUF_C)
endfunction()
